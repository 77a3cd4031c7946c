package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/tungate/tungate/admin"
	"github.com/tungate/tungate/lan"
	"github.com/tungate/tungate/netstack"
	"github.com/tungate/tungate/proxy"
	"github.com/tungate/tungate/tundev"
)

// MaxSize bounds a config in bytes. A long one has some kilobytes.
const MaxSize = 1 << 20

// DefaultShutdownTimeout is Config.ShutdownTimeout when the file says nothing. It
// is what docker stop waits before it kills.
const DefaultShutdownTimeout = 10 * time.Second

// What a memory limit may be.
const (
	minMemory int64 = 32 << 20
	maxMemory int64 = 1 << 40
	minBudget int64 = 1 << 20
)

// Config is everything a gateway is told. The zero value of each package's
// Options has the meaning that package gives it.
type Config struct {
	Device tundev.Options
	LAN    lan.Options // of a TAP; its MTU is the device's
	Stack  netstack.Options
	Proxy  proxy.Options
	Admin  admin.Options
	Log    LogOptions
	// ShutdownTimeout bounds the end: connections still open after it are cut.
	ShutdownTimeout time.Duration
	// MemoryLimit is what the program may use, in bytes; at nine tenths of it new
	// connections are refused. 0 is the control group's limit, if it has one.
	MemoryLimit int64
}

// LogOptions say what is logged, and how.
type LogOptions struct {
	Level  zapcore.Level // debug, info, warn or error
	Format LogFormat
}

// LogFormat is how a log line looks.
type LogFormat uint8

// The log formats.
const (
	FormatAuto    LogFormat = iota // console on a terminal, else JSON
	FormatJSON                     // an object a line, for collectors
	FormatConsole                  // for people
)

// String returns the word the config uses.
func (f LogFormat) String() string {
	switch f {
	case FormatAuto:
		return "auto"
	case FormatJSON:
		return "json"
	case FormatConsole:
		return "console"
	}
	return "unknown"
}

// Default is the config of an empty file.
func Default() *Config { return &Config{ShutdownTimeout: DefaultShutdownTimeout} }

// Load reads the config at path. Every error is an *Error.
func Load(path string) (*Config, error) {
	src, err := readFile(path)
	if err != nil {
		return nil, &Error{Faults: []Fault{{File: path, Message: explainRead(err)}}, cause: err}
	}
	return Parse(path, src)
}

// readFile reads no more than shows that a file is too large.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

func explainRead(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file; check the path, or start from one of examples/"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not read the file; change its owner or mode"
	case errors.Is(err, syscall.EISDIR):
		return "this is a directory; name the file in it"
	}
	return "cannot be read: " + err.Error()
}

// Parse reads the config in src; name stands for the file in messages. An empty
// src is the default config. Every error is an *Error with all faults; without
// one, Validate of the result succeeds.
func Parse(name string, src []byte) (*Config, error) {
	if len(src) > MaxSize {
		return nil, asError(name, []Fault{{Message: fmt.Sprintf("the file is larger than %d bytes; is it a config?", MaxSize)}})
	}
	root, faults := parseYAML(src)
	if len(faults) > 0 {
		return nil, asError(name, faults)
	}
	c := Default()
	r := &reader{positions: map[string]position{}}
	r.refuseShortcuts(root)
	r.readSection(newSchema(c).root, root)
	for _, p := range c.problems() {
		r.addProblem(p)
	}
	if err := asError(name, r.faults); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate reports every fault in c, joined; each begins with the field's path.
func (c *Config) Validate() error {
	var errs []error
	for _, p := range c.problems() {
		errs = append(errs, errors.New(p.path+": "+p.message))
	}
	return errors.Join(errs...)
}

// problem is one fault of a Config that need not have come from a file.
type problem struct{ path, message string }

func (c *Config) problems() []problem {
	var all []problem
	for _, s := range []struct {
		name     string
		validate func() error
	}{
		{"device", c.Device.Validate},
		{"lan", c.validateLAN},
		{"stack", c.Stack.Validate},
		{"proxy", c.Proxy.Validate},
		{"admin", c.Admin.Validate},
		{"log", c.Log.Validate},
	} {
		for _, err := range flatten(s.validate()) {
			all = append(all, locate(s.name, err))
		}
	}
	if c.ShutdownTimeout <= 0 {
		all = append(all, problem{"shutdown_timeout", fmt.Sprintf("%v is not above 0", c.ShutdownTimeout)})
	}
	if c.MemoryLimit != 0 && (c.MemoryLimit < minMemory || c.MemoryLimit > maxMemory) {
		all = append(all, problem{"memory_limit", fmt.Sprintf("%d is not between %d and %d bytes", c.MemoryLimit, minMemory, maxMemory)})
	}
	return append(all, c.adminOnDevice()...)
}

// validateLAN asks for what a TAP needs, and for nothing on a TUN.
func (c *Config) validateLAN() error {
	if c.Device.Kind == tundev.TAP {
		return c.LANOptions().Validate()
	}
	if !reflect.ValueOf(c.LAN).IsZero() {
		return errors.New("only a TAP is a link with guests; set device.kind to tap, or remove this section")
	}
	return nil
}

// LANOptions is LAN with what other sections say of it.
func (c *Config) LANOptions() *lan.Options {
	o := c.LAN
	if o.MTU == 0 {
		o.MTU = int(c.Device.MTU)
	}
	return &o
}

// Validate reports every fault in o, joined; each begins with the field's path.
func (o *LogOptions) Validate() error {
	var errs []error
	if o.Level < zapcore.DebugLevel || o.Level > zapcore.ErrorLevel {
		errs = append(errs, fmt.Errorf("level: %v is not one of debug, info, warn, error", o.Level))
	}
	if o.Format > FormatConsole {
		errs = append(errs, fmt.Errorf("format: %d is not one of auto, json, console", o.Format))
	}
	return errors.Join(errs...)
}

// adminOnDevice refuses an admin server on an address of the device, which is the
// one the gateway's clients see.
func (c *Config) adminOnDevice() []problem {
	at, err := netip.ParseAddrPort(c.Admin.Listen)
	if err != nil {
		return nil // no numeric address, or admin's own Validate says what is wrong
	}
	for _, a := range slices.Concat(c.Device.Addresses, c.LAN.Addresses) {
		if a.Addr() == at.Addr().Unmap() {
			return []problem{{"admin.listen", fmt.Sprintf(
				"%s is on the device, where the gateway's clients could read it; use %s, or unix:/run/tungate.sock", at.Addr(), admin.DefaultListen)}}
		}
	}
	return nil
}

// flatten undoes errors.Join, also where it is nested.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// fieldPath is how a message of a Validate begins: "tcp.keepalive_count: ".
var fieldPath = regexp.MustCompile(`^([a-z][a-z0-9_.]*(?:\[[^ ]*\])?): `)

// locate splits a message of a section's Validate; one that names no field is
// about the section.
func locate(section string, err error) problem {
	text := err.Error()
	m := fieldPath.FindStringSubmatch(text)
	if m == nil {
		return problem{section, text}
	}
	path := section + "." + m[1]
	if path == "lan.mtu" {
		path = "device.mtu" // where it is set
	}
	return problem{path, strings.TrimPrefix(text, m[0])}
}
