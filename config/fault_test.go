package config

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
)

// faultTests are what people get wrong, and word for word what they read.
var faultTests = []struct{ name, src, want string }{
	{
		"wrong values", `device:
  name: a/b
  mtu: abc
  addresses: [10.0.0.1, "::ffff:10.0.0.1/120", host]
  routes: [10.1.2.3/8, 10.0.0.1, default]
  offload: {checksum: of, tso4: true}
`, `
2:3: device.name: "a/b" holds a letter the kernel refuses; use an interface name of up to 15 letters, such as tun0 or tun%d
3:3: device.mtu: "abc" is not a number; use a whole number of bytes from 68 to 65535
4:15: device.addresses[0]: "10.0.0.1" has no prefix length; use an address with its prefix length, such as 198.18.0.1/15 or fd00:18::1/64
4:25: device.addresses[1]: "::ffff:10.0.0.1/120" is an IPv4 address in IPv6 form; use an address with its prefix length, such as 198.18.0.1/15 or fd00:18::1/64
4:48: device.addresses[2]: "host" is not an address with a prefix length; use an address with its prefix length, such as 198.18.0.1/15 or fd00:18::1/64
5:12: device.routes[0]: "10.1.2.3/8" has bits set past its length; write 10.0.0.0/8
5:24: device.routes[1]: "10.0.0.1" has no prefix length; write 10.0.0.1/32 for this one address
5:34: device.routes[2]: "default" is not known here; write 0.0.0.0/0, "::/0", or both
6:13: device.offload.checksum: "of" is not known; did you mean on? Use auto, on or off
6:27: device.offload.tso4: "true" is not known; use auto, on or off
`,
	},
	{
		"numbers", `stack:
  max_half_open: 0
  max_connections: 1e5
  tcp:
    keepalive_idle: 0
    keepalive_interval: -1s
    keepalive_count: 010
    user_timeout: 10
    receive_buffer: 4MB
    send_buffer: 1GiB
proxy:
  mark: 0x100000000
  connect_timeout: 10us
  idle_timeout: never
`, `
2:3: stack.max_half_open: "0" is out of range; use a whole number from 1 to 2147483647
3:3: stack.max_connections: "1e5" is not a whole number; use a whole number from 1 to 2147483647
5:5: stack.tcp.keepalive_idle: "0" is not above 0; use a time with its unit, such as 30s, 5m or 2h, or off
6:5: stack.tcp.keepalive_interval: "-1s" is not above 0; use a time with its unit, such as 500ms, 10s, 5m or 2h
7:5: stack.tcp.keepalive_count: "010" begins with 0, which some take for octal; use a whole number from 1 to 127
8:5: stack.tcp.user_timeout: "10" has no unit; use a time with its unit, such as 500ms, 10s, 5m or 2h
9:5: stack.tcp.receive_buffer: "4MB" has a unit that is not one of B, KiB, MiB, GiB; use a size from 4KiB to 64MiB, such as 4MiB
10:5: stack.tcp.send_buffer: "1GiB" is out of range; use a size from 4KiB to 64MiB, such as 4MiB
12:3: proxy.mark: "0x100000000" is out of range; use a whole number from 0 to 4294967295
13:3: proxy.connect_timeout: "10us" is less than 1ms; use a time with its unit, such as 500ms, 10s, 5m or 2h
14:3: proxy.idle_timeout: "never" is not a time; use a time with its unit, such as 30s, 5m or 2h, or off
`,
	},
	{
		"names", `device: {name: tun%s}
proxy:
  handler: ""
  interface: eth%d
`, `
1:10: device.name: "tun%s" holds a % that is not the only %d; use an interface name of up to 15 letters, such as tun0 or tun%d
3:3: proxy.handler: "" is empty; use direct, fixed or echo
4:3: proxy.interface: "eth%d" holds a %; use the name of an interface, such as eth0
`,
	},
	{
		"more names", `device: {name: ..}
proxy: {interface: an-interface-name, allow: [all, {a: b}], udp: {max_sessions: 99999999999999999999}}
stack: {tcp: {receive_buffer: 99999999999GiB, send_buffer: much}}
`, `
1:10: device.name: ".." is no name the kernel takes; use an interface name of up to 15 letters, such as tun0 or tun%d
2:9: proxy.interface: "an-interface-name" is longer than the kernel's 15 bytes
2:47: proxy.allow[0]: "all" is not known; use loopback, self, link-local, multicast or embedded
2:52: proxy.allow[1]: a block of fields stands where a single value should; use loopback, self, link-local, multicast or embedded
2:67: proxy.udp.max_sessions: "99999999999999999999" is out of range; use a whole number from 1 to 2147483647
3:15: stack.tcp.receive_buffer: "99999999999GiB" is out of range; use a size from 4KiB to 64MiB, such as 4MiB
3:47: stack.tcp.send_buffer: "much" is not a size; use a size from 4KiB to 64MiB, such as 4MiB
`,
	},
	{
		"fields that are none", `device:
  adress: [10.0.0.1/8]
  mtu: 1500
  mtu: 1400
  colour: red
stack:
  maxHalfOpen: 3
mtu: 1500
tcp: {}
"a\nb": 1
`, `
2:3: device.adress: is not a known field; did you mean addresses?
4:3: device.mtu: is set twice, first on line 3; keep one
5:3: device.colour: is not a known field; use one of name, kind, attach, netns, create_netns, fds, socket, queues, on_delete, mtu, addresses, routes, offload
7:3: stack.maxHalfOpen: is not a known field; did you mean max_half_open?
8:1: mtu: is not a known field; did you mean device.mtu?
9:1: tcp: is not a known field; did you mean stack.tcp?
10:1: "a\nb": is not a known field; use one of device, lan, stack, proxy, admin, log, shutdown_timeout, memory_limit
`,
	},
	{
		"shapes", `device: tun0
stack: [1]
proxy:
  handler:
  target: {a: b}
  allow: loopback
  forward: [a]
  udp:
    ? [a, b]
    : 1
admin:
  pprof: yes
log:
  level: loud
  format: [json]
`, `
1:9: device: "tun0" stands where a block of fields should; use fields such as device.name, device.kind, device.attach
2:8: stack: a list stands where a block of fields should; use fields such as stack.max_half_open, stack.max_half_open_per_source, stack.max_half_open_per_destination
4:3: proxy.handler: has no value; use direct, fixed or echo, or remove the line
5:3: proxy.target: a block of fields stands where a single value should; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
6:3: proxy.allow: "loopback" stands where a list should; write [item, item], each item being loopback, self, link-local, multicast or embedded
7:3: proxy.forward: a list stands where pairs should; write one a line, each mapping a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80 to a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
9:7: proxy.udp: a list stands where a field's name should; write name: value
12:3: admin.pprof: "yes" is neither; use true or false
14:3: log.level: "loud" is not known; use debug, info, warn or error
15:3: log.format: a list stands where a single value should; use auto, json or console
`,
	},
	{
		"forward", `proxy:
  forward:
    198.18.0.2:53: 127.0.0.1:0
    198.18.0.2: 127.0.0.1:53
    dns:53: 127.0.0.1:53
    "[fe80::1%eth0]:53": 127.0.0.1:53
    "[::ffff:198.18.0.2]:53": 127.0.0.1:53
    198.18.0.3:53:
    198.18.0.4:53: 127.0.0.1:53
    198.18.0.4:053: 127.0.0.1:54
`, `
3:20: proxy.forward[198.18.0.2:53]: "127.0.0.1:0" has port 0; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
4:5: proxy.forward["198.18.0.2"]: "198.18.0.2" has no port; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
5:5: proxy.forward["dns:53"]: "dns:53" is not a numeric address with a port; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
6:5: proxy.forward[[fe80::1%eth0]:53]: "[fe80::1%eth0]:53" has a zone, which no packet carries; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
7:5: proxy.forward[[::ffff:198.18.0.2]:53]: "[::ffff:198.18.0.2]:53" is an IPv4 address in IPv6 form; write 198.18.0.2:53
8:19: proxy.forward[198.18.0.3:53]: has no value; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80, or remove the line
10:5: proxy.forward[198.18.0.4:053]: is mapped twice, first on line 9; keep one
`,
	},
	{
		"what the packages say", `device:
  name: a-name-of-17-byte
  mtu: 1000
  addresses:
    - 10.0.0.1/8
    - fd00::1/64
  offload: {checksum: off, tso4: on}
stack: {tcp: {congestion_control: bbr}}
proxy: {handler: fixed}
admin: {listen: ":9090"}
`, `
2:3: device.name: "a-name-of-17-byte" is longer than the kernel's 15 bytes
6:7: device.addresses[1]: fd00::1/64 needs an mtu of at least 1280 (RFC 8200, section 5)
7:28: device.offload.tso4: on needs offload.checksum on or auto
8:15: stack.tcp.congestion_control: "bbr" is not one of cubic, reno
9:1: proxy.target: handler fixed needs one, such as 192.0.2.1:80
10:9: admin.listen: ":9090" names no address; write 127.0.0.1:9090 for this host alone, or [::]:9090 for everybody
`,
	},
	{
		"no word about what stood in for a refused value", "proxy: {handler: fixed, target: here}", `
1:25: proxy.target: "here" is not a numeric address with a port; use a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80
`,
	},
	{
		"admin on the device", "device: {addresses: [198.18.0.1/15]}\nadmin: {listen: 198.18.0.1:9090}", `
2:9: admin.listen: 198.18.0.1 is on the device, where the gateway's clients could read it; use 127.0.0.1:9090, or unix:/run/tungate.sock
`,
	},
	{
		"shortcuts of YAML", `device: &d
  mtu: !!int "1500"
stack: *d
proxy:
  <<: *d
`, `
1:9: anchors ("d") are not supported; remove it, and write the value out where it is used
2:8: tags ("!!int") are not supported; remove it
3:8: aliases ("d") are not supported; write the value out
5:3: merges (<<) are not supported; write the fields out
5:7: aliases ("d") are not supported; write the value out
`,
	},
	{"a long value", "device: {mtu: " + strings.Repeat("x", 1000) + "}", `
1:10: device.mtu: "` + strings.Repeat("x", 64) + `"... is not a number; use a whole number of bytes from 68 to 65535
`},
	{"a tab", "device:\n\tname: tun0\n  mtu: 3\n\t\tx: 1\n", `
2:1: a tab indents this line; YAML takes spaces only
4:1: a tab indents this line; YAML takes spaces only
`},
	{"a colon", "device:\n  name: a: b\n", `
2:3: a colon is not expected here; indent fields of one block alike, and quote text that holds a colon and a space
`},
	{"indentation", "device:\n  name: x\n  routes:\n    - 10.0.0.0/8\n   mtu: 1\n# end\n", `
5:4: this does not line up with what is above; indent fields of one block alike, with spaces
`},
	{"a list open", "device:\n  routes: [10.0.0.0/8,\nstack: {}\n", `
3:1: a list that begins with [ is not closed; separate its items with commas, and end it with ]
`},
	{"a block closed twice", "device: {offload: {tso4: auto}, tso6: off}}\nproxy: {}\n", `
1:1: a } or ] too many; remove it
`},
	{"a node that is none", "device:\n  routes: [::1]\n", `
2:3: a value that YAML does not read as text here; quote it
`},
	{"a block open", "device: {mtu: 3\nproxy:\n", `
1:1: a block that begins with { is not closed; separate its fields with commas, and end it with }
`},
	{"a quote open", "device:\n  name: \"tun0\n", `
2:3: a quoted text that begins here is not closed; end it with the same quote
`},
	{"an escape", "device: {name: \"\\q\"}", `
1:1: an unknown \ escape in double quotes; use single quotes to have \ mean itself
`},
	{"an alias of nothing", "device:\n  name: *x\n", `
2:3: aliases (*name) are not supported; write the value out, or quote text that begins with *
`},
	{"two documents", "device:\n---\nstack:\n", `
2:1: a second document begins here (---); use one file for each gateway
`},
	{"not text", "device:\n  name: \xff\n", `
2:9: this is not UTF-8 text; is it a config? If so, save it as UTF-8
`},
	{"control characters", "a: b\nc: \x01\n", `
2:1: the file holds control characters; is it a text file?
`},
	{"a directive", "%YAML 1.2\n---\ndevice:\n", `
1:1: the %YAML line is not needed; remove it
`},
	{"no config at all", "hello", `
1:1: "hello" stands where a block of fields should; use fields such as device, lan, stack
`},
}

func TestFaults(t *testing.T) {
	for _, test := range faultTests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(test.src))
			var want []string
			for line := range strings.Lines(strings.TrimPrefix(test.want, "\n")) {
				want = append(want, "f.yaml:"+strings.TrimSuffix(line, "\n"))
			}
			if joined := strings.Join(want, "\n"); err == nil || err.Error() != joined {
				t.Errorf(" got\n%v\nwant\n%s", err, joined)
			}
			if err != nil {
				checkFaults(t, []byte(test.src), err)
			}
		})
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 10 * maxFaults {
		b.WriteString("x")
		b.WriteString(strings.Repeat("y", i))
		b.WriteString(": 1\n")
	}
	_, err := Parse("f.yaml", []byte(b.String()))
	var all *Error
	if !errors.As(err, &all) || len(all.Faults) != maxFaults+1 {
		t.Fatalf("got %d faults", len(all.Faults))
	}
	if got, want := all.Faults[maxFaults].String(), "f.yaml: and 900 more faults"; got != want {
		t.Errorf("the last one is %q, not %q", got, want)
	}
}

// TestDeepNesting is about the stack: yaml.v3 allows 10,000 levels.
func TestDeepNesting(t *testing.T) {
	for _, n := range []int{9_000, 100_000} {
		if _, err := Parse("f.yaml", []byte("device: "+strings.Repeat("[", n)+strings.Repeat("]", n))); err == nil {
			t.Errorf("%d nested lists are accepted", n)
		}
	}
}

// TestProblemPosition: a problem is put on its field, else on what is around it.
func TestProblemPosition(t *testing.T) {
	r := &reader{positions: map[string]position{"a": {1, 1}, "a.b": {2, 3}, "a.b[0]": {3, 5}}}
	for _, path := range []string{"a.b[0]", "a.b[1]", "a.b[[::1]:53]", "a.c", "a.c.d", "z"} {
		r.addProblem(problem{path, "wrong"})
	}
	want := []position{{3, 5}, {2, 3}, {2, 3}, {1, 1}, {1, 1}, {1, 1}}
	for i, f := range r.faults {
		if got := (position{f.Line, f.Column}); got != want[i] {
			t.Errorf("%s is put on %v, not %v", f.Field, got, want[i])
		}
	}
}

func TestLocate(t *testing.T) {
	for message, want := range map[string]problem{
		"mtu: too small":                   {"device.mtu", "too small"},
		"offload.tso4: on needs: checksum": {"device.offload.tso4", "on needs: checksum"},
		"addresses[3]: bad":                {"device.addresses[3]", "bad"},
		"forward[[::1]:53]: bad":           {"device.forward[[::1]:53]", "bad"},
		"All of it is wrong":               {"device", "All of it is wrong"},
	} {
		if got := locate("device", errors.New(message)); got != want {
			t.Errorf("%q is %+v, not %+v", message, got, want)
		}
	}
}

func TestExplainRead(t *testing.T) {
	for err, want := range map[error]string{
		fs.ErrPermission: "this user may not read the file; change its owner or mode",
		io.ErrNoProgress: "cannot be read: multiple Read calls return no data or error",
	} {
		if got := explainRead(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFaultJSON(t *testing.T) {
	_, err := Parse("f.yaml", lines("device:", "  mtu: 1"))
	var all *Error
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	got, err := json.Marshal(all.Faults)
	const want = `[{"file":"f.yaml","line":2,"column":3,"field":"device.mtu","message":"\"1\" is out of range; use a whole number of bytes from 68 to 65535"}]`
	if err != nil || string(got) != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
}
