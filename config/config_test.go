package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tungate/tungate/admin"
)

// lines joins the lines of a small config.
func lines(s ...string) []byte { return []byte(strings.Join(s, "\n") + "\n") }

// mustParse fails the test on a fault.
func mustParse(t *testing.T, src []byte) *Config {
	t.Helper()
	c, err := Parse("test.yaml", src)
	if err != nil {
		t.Fatalf("unexpected faults:\n%v", err)
	}
	return c
}

func TestEmptyFileIsDefault(t *testing.T) {
	for _, src := range []string{"", "\n", "# nothing\n", "---\n", "{}", "device:\nproxy:\n  allow:\n  forward:\n", "\ufeff# BOM"} {
		if c := mustParse(t, []byte(src)); !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q gives %+v, not the default", src, c)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("the default is not valid: %v", err)
	}
}

// TestEveryFieldIsReachable asks for a row of the table for every field of every
// Options, so that a new option cannot be forgotten.
func TestEveryFieldIsReachable(t *testing.T) {
	c := new(Config)
	places := map[any]string{}
	for _, f := range fields(c) {
		if other, ok := places[f.value.place()]; ok {
			t.Errorf("%s and %s share a place", other, f.path)
		}
		places[f.value.place()] = f.path
	}
	var visit func(path string, v reflect.Value)
	visit = func(path string, v reflect.Value) {
		if _, ok := places[v.Addr().Interface()]; ok || path == "Config.LAN.MTU" || path == "Config.Proxy.Own" || path == "Config.Stack.Handshake.DialTimeout" { // others' business
			return
		}
		if v.Kind() != reflect.Struct {
			t.Errorf("%s has no row in schema.go: no file can set it", path)
			return
		}
		for i := range v.NumField() {
			visit(path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	}
	visit("Config", reflect.ValueOf(c).Elem())
}

// TestFullFile reads files that together set every field, some of which exclude
// others, and finds every field set.
func TestFullFile(t *testing.T) {
	set := map[string]bool{}
	for _, path := range []string{"testdata/full.yaml", "testdata/fds.yaml", "testdata/socket.yaml"} {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c := mustParse(t, src)
		for _, f := range fields(c) {
			if !reflect.ValueOf(f.value.place()).Elem().IsZero() {
				set[f.path] = true
			}
		}
		checkRoundTrip(t, c)
	}
	for _, f := range fields(new(Config)) {
		if !set[f.path] {
			t.Errorf("no file of testdata sets %s", f.path)
		}
	}
}

// checkRoundTrip writes c, reads it back and compares.
func checkRoundTrip(t *testing.T, c *Config) {
	t.Helper()
	out, err := Marshal(c)
	if err != nil {
		t.Fatalf("Marshal: %v", err)
	}
	again, err := Parse("marshalled.yaml", out)
	if err != nil {
		t.Fatalf("what Marshal wrote is refused:\n%v\n%s", err, out)
	}
	if !reflect.DeepEqual(c, again) {
		t.Fatalf("the round trip changed the config:\n%+v\n%+v\n%s", c, again, out)
	}
	out2, err := Marshal(again)
	if err != nil || string(out) != string(out2) {
		t.Fatalf("Marshal is not stable (%v):\n%s\n%s", err, out, out2)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if c, err := Load(write("good.yaml", "device: {mtu: 9000}")); err != nil || c.Device.MTU != 9000 {
		t.Errorf("Load = %+v, %v", c, err)
	}
	for _, test := range []struct {
		path, want string
		cause      error
	}{
		{filepath.Join(dir, "absent.yaml"), ": there is no such file; check the path, or start from one of examples/", fs.ErrNotExist},
		{dir, ": this is a directory; name the file in it", nil},
		{write("large.yaml", strings.Repeat("#", MaxSize+1)), ": the file is larger than 1048576 bytes; is it a config?", nil},
		{write("bad.yaml", "\ndevice: {mtu: 1}"), ":2:10: device.mtu: \"1\" is out of range; use a whole number of bytes from 68 to 65535", nil},
	} {
		_, err := Load(test.path)
		if err == nil || err.Error() != test.path+test.want {
			t.Errorf("Load:\n got %v\nwant %s", err, test.path+test.want)
		}
		if faults := new(Error); !errors.As(err, &faults) || len(faults.Faults) != 1 {
			t.Errorf("%v is no *Error of one fault", err)
		}
		if test.cause != nil && !errors.Is(err, test.cause) {
			t.Errorf("%v does not unwrap to %v", err, test.cause)
		}
	}
	if _, err := Load(write("limit.yaml", strings.Repeat("#", MaxSize))); err != nil {
		t.Errorf("a file of MaxSize is refused: %v", err)
	}
}

// TestValidate covers what a Config made in Go, not read, can have wrong.
func TestValidate(t *testing.T) {
	c := Default()
	c.Device.MTU = 1
	c.Stack.TCP.KeepaliveCount = -1
	c.Proxy.Handler = "none"
	c.Admin.Listen = "nowhere"
	c.Log = LogOptions{Level: 99, Format: 99}
	c.ShutdownTimeout = 0
	err := c.Validate()
	for _, want := range []string{
		"device.mtu: ", "stack.tcp.keepalive_count: ", "proxy.handler: ", "admin.listen: ", "log.level: ", "log.format: ", "shutdown_timeout: ",
	} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("Validate does not mention %q:\n%v", want, err)
		}
	}
}

// TestBoundsAgree holds the bounds that messages name against those that the
// packages enforce.
func TestBoundsAgree(t *testing.T) {
	for _, test := range []struct {
		name  string
		set   func(*Config, int)
		low   int
		high  int
		below bool // whether low-1 is refused too; 0 means the default
	}{
		{"stack.tcp.receive_buffer", func(c *Config, n int) { c.Stack.TCP.ReceiveBuffer = n }, minBuffer, maxBuffer, true},
		{"stack.tcp.send_buffer", func(c *Config, n int) { c.Stack.TCP.SendBuffer = n }, minBuffer, maxBuffer, true},
		{"stack.tcp.keepalive_count", func(c *Config, n int) { c.Stack.TCP.KeepaliveCount = n }, 1, maxKeepaliveCount, false},
		{"proxy.keepalive_count", func(c *Config, n int) { c.Proxy.KeepaliveCount = n }, 1, maxKeepaliveCount, false},
	} {
		valid := func(n int) bool {
			c := Default()
			test.set(c, n)
			return c.Validate() == nil
		}
		if !valid(test.low) || !valid(test.high) {
			t.Errorf("%s: Validate refuses what is documented as allowed", test.name)
		}
		if valid(test.high+1) || test.below && valid(test.low-1) {
			t.Errorf("%s: Validate allows what is documented as refused", test.name)
		}
	}
}

func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(paths) < 2 {
		t.Fatalf("examples: %v, %v", paths, err)
	}
	for _, path := range paths {
		c, err := Load(path)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		checkRoundTrip(t, c)
	}
}

// TestFixedExamples holds the two examples that other programs rely on.
func TestFixedExamples(t *testing.T) {
	want := Default()
	want.Device.Name = "tun0"
	want.Device.MTU = 1500
	want.Device.Addresses = prefixes("198.18.0.1/15", "fd00:18::1/64")
	want.Admin.Listen = admin.DefaultListen
	for path, set := range map[string]func(){
		"../examples/direct.yaml": func() { want.Proxy.Handler, want.Proxy.Mark = "direct", 1 },
		"../examples/echo.yaml":   func() { want.Proxy.Handler, want.Proxy.Mark = "echo", 0 },
	} {
		set()
		got, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", path, got, want)
		}
	}
}

func prefixes(all ...string) []prefix {
	var out []prefix
	for _, s := range all {
		p, err := parsePrefix(s)
		if err != nil {
			panic(err)
		}
		out = append(out, p)
	}
	return out
}
