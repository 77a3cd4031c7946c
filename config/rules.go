package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// This file holds the rules by which the text of a single value is read.

func same(s string) string { return s }

func cmpText(a, b string) int { return cmp.Compare(a, b) }

// text takes any text that check accepts.
func text(to *string, allowed string, check func(string) error) value {
	return &scalar[string]{to, rule[string]{
		parse: func(s string) (string, error) {
			if s == "" {
				return "", errors.New("is empty")
			}
			return s, check(s)
		},
		format: same, allowed: allowed,
	}}
}

// anyText leaves the judgement to the section's Validate.
func anyText(string) error { return nil }

// interfaceName checks what the kernel's dev_valid_name does; the length is left
// to Validate.
func interfaceName(s string) error {
	bad := func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	switch {
	case s == "." || s == "..":
		return errors.New("is no name the kernel takes")
	case strings.ContainsFunc(s, bad):
		return errors.New("holds a letter the kernel refuses")
	}
	return nil
}

// deviceName is an interface name that may hold one %d.
func deviceName(s string) error {
	if strings.Contains(strings.Replace(s, "%d", "", 1), "%") {
		return errors.New("holds a % that is not the only %d")
	}
	return interfaceName(s)
}

// hostInterface is the name of an interface that exists.
func hostInterface(s string) error {
	if strings.Contains(s, "%") {
		return errors.New("holds a %")
	}
	return interfaceName(s)
}

// boolean takes true and false. Not yes and on: YAML 1.2 made them plain text.
func boolean(to *bool) value { return truth(to, true) }

// unless is boolean for a field that means the opposite, so that its zero is true.
func unless(to *bool) value { return truth(to, false) }

func truth(to *bool, yes bool) value {
	return &scalar[bool]{to, rule[bool]{
		parse: func(s string) (bool, error) {
			switch s {
			case "true":
				return yes, nil
			case "false":
				return !yes, nil
			}
			return false, errors.New("is neither")
		},
		format: func(v bool) string { return strconv.FormatBool(v == yes) }, allowed: "true or false", tag: "!!bool",
	}}
}

// oneOf takes one of a few words.
func oneOf[T interface {
	comparable
	fmt.Stringer
}](to *T, all ...T) value {
	return &scalar[T]{to, oneOfRule(T.String, all...)}
}

func oneOfRule[T any](format func(T) string, all ...T) rule[T] {
	words := make([]string, len(all))
	for i, v := range all {
		words[i] = format(v)
	}
	return rule[T]{
		parse: func(s string) (v T, err error) {
			if i := slices.Index(words, s); i >= 0 {
				return all[i], nil
			}
			if near := nearest(s, words); near != "" {
				return v, advice("is not known; did you mean " + near + "? Use " + orList(words))
			}
			return v, errors.New("is not known")
		},
		format: format, allowed: orList(words),
	}
}

// orList is "a, b or c".
func orList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// number takes a whole number, in the notations of Go (0x1f, 1_000). unit is what
// is counted, "" nothing in particular.
func number[T ~int | ~uint32](to *T, lowest, highest T, unit string) value {
	return &scalar[T]{to, numberRule(lowest, highest, unit)}
}

func numberRule[T ~int | ~uint32](lowest, highest T, unit string) rule[T] {
	what := "a whole number"
	if unit != "" {
		what += " of " + unit
	}
	return rule[T]{
		parse: func(s string) (T, error) {
			n, err := parseWhole(s)
			if err == nil && (n < int64(lowest) || n > int64(highest)) {
				err = errors.New("is out of range")
			}
			return T(n), err
		},
		format:  func(v T) string { return strconv.FormatInt(int64(v), 10) },
		allowed: fmt.Sprintf("%s from %d to %d", what, lowest, highest),
		tag:     "!!int",
	}
}

// parseWhole refuses a leading 0, which is octal to one half of the readers.
func parseWhole(s string) (int64, error) {
	if digits := strings.TrimLeft(s, "+-"); len(digits) > 1 && digits[0] == '0' && unicode.IsDigit(rune(digits[1])) {
		return 0, errors.New("begins with 0, which some take for octal")
	}
	n, err := strconv.ParseInt(s, 0, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errors.New("is out of range")
	case err != nil && strings.ContainsAny(s, ".eE") && isFloat(s):
		return 0, errors.New("is not a whole number")
	case err != nil:
		return 0, errors.New("is not a number")
	}
	return n, nil
}

func isFloat(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// The units of a size, largest first.
var sizeUnits = [...]struct {
	name string
	n    int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

var sizeText = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)

// size takes a number of bytes with or without a unit: 65536, 64KiB, 4MiB.
func size[T ~int | ~int64](to *T, lowest, highest T) value {
	return &scalar[T]{to, rule[T]{
		parse: func(s string) (T, error) {
			n, err := parseSize(s)
			if err == nil && (n < int64(lowest) || n > int64(highest)) {
				err = errors.New("is out of range")
			}
			return T(n), err
		},
		format:  formatSize[T],
		allowed: fmt.Sprintf("a size from %s to %s, such as %s", formatSize(lowest), formatSize(highest), formatSize(highest/16)),
	}}
}

func parseSize(s string) (int64, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("is not a size")
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > 1<<30 {
		return 0, errors.New("is out of range")
	}
	if m[2] == "" {
		return n, nil
	}
	for _, u := range sizeUnits {
		if m[2] == u.name {
			return n * u.n, nil
		}
	}
	// MB is 1000000 to one reader and 1048576 to another.
	return 0, errors.New("has a unit that is not one of B, KiB, MiB, GiB")
}

func formatSize[T ~int | ~int64](size T) string {
	n := int64(size)
	for _, u := range sizeUnits[:3] {
		if n >= u.n && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// duration takes a positive time with its unit.
func duration(to *time.Duration) value {
	return &scalar[time.Duration]{to, rule[time.Duration]{
		parse: parseDuration, format: short,
		allowed: "a time with its unit, such as 500ms, 10s, 5m or 2h",
	}}
}

// off is how a duration that never comes is kept: the packages take any negative
// one as that.
const off time.Duration = -1

// durationOrOff is a duration, or the word off.
func durationOrOff(to *time.Duration) value {
	return &scalar[time.Duration]{to, rule[time.Duration]{
		parse: func(s string) (time.Duration, error) {
			if s == "off" {
				return off, nil
			}
			return parseDuration(s)
		},
		format: func(d time.Duration) string {
			if d < 0 {
				return "off"
			}
			return short(d)
		},
		allowed: "a time with its unit, such as 30s, 5m or 2h, or off",
	}}
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if _, bare := strconv.ParseFloat(s, 64); bare == nil && d == 0 && s != "0" {
		return 0, errors.New("has no unit")
	}
	switch {
	case err != nil:
		return 0, errors.New("is not a time")
	case d <= 0:
		return 0, errors.New("is not above 0")
	case d < time.Millisecond:
		return 0, errors.New("is less than 1ms")
	}
	return d, nil
}

// addressRule takes an address with its prefix length, as an interface has it.
func addressRule() rule[netip.Prefix] {
	return rule[netip.Prefix]{
		parse: parsePrefix, format: netip.Prefix.String,
		allowed: "an address with its prefix length, such as 198.18.0.1/15 or fd00:18::1/64",
	}
}

// networkRule takes a prefix of which only the network's bits are set.
func networkRule() rule[netip.Prefix] {
	return rule[netip.Prefix]{
		parse: func(s string) (netip.Prefix, error) {
			p, err := parsePrefix(s)
			if a, noLength := netip.ParseAddr(s); noLength == nil {
				return p, advice(fmt.Sprintf("has no prefix length; write %s/%d for this one address", a.WithZone(""), a.BitLen()))
			}
			if err == nil && p != p.Masked() {
				err = advice("has bits set past its length; write " + p.Masked().String())
			}
			return p, err
		},
		format:  netip.Prefix.String,
		allowed: "a network, such as 10.0.0.0/8 or fd00::/8",
	}
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err == nil && p.Addr().Is4In6():
		return p, errors.New("is an IPv4 address in IPv6 form")
	case err == nil:
		return p, nil
	case s == "default":
		return p, advice("is not known here; write 0.0.0.0/0, \"::/0\", or both")
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return p, errors.New("has no prefix length")
	}
	return p, errors.New("is not an address with a prefix length")
}

// upstreamRule takes the address and port of a server.
func upstreamRule() rule[netip.AddrPort] {
	return rule[netip.AddrPort]{
		parse: parseAddrPort, format: netip.AddrPort.String,
		allowed: "a numeric address and port, such as 192.0.2.1:80 or [2001:db8::1]:80",
	}
}

// destinationRule is what a client can send to: no zone crosses the device.
func destinationRule() rule[netip.AddrPort] {
	r := upstreamRule()
	r.parse = func(s string) (netip.AddrPort, error) {
		a, err := parseAddrPort(s)
		if err == nil && a.Addr().Zone() != "" {
			err = errors.New("has a zone, which no packet carries")
		}
		return a, err
	}
	return r
}

func parseAddrPort(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	switch {
	case err == nil && a.Port() == 0:
		return a, errors.New("has port 0")
	case err == nil && a.Addr().Is4In6():
		return a, advice("is an IPv4 address in IPv6 form; write " + netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String())
	case err == nil:
		return a, nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return a, errors.New("has no port")
	}
	return a, errors.New("is not a numeric address with a port")
}

// quoteAddress leaves a key alone that could be an address.
func quoteAddress(s string) string {
	if _, err := netip.ParseAddrPort(s); err == nil {
		return s
	}
	return quoteKey(s)
}
