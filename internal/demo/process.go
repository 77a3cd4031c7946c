package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/tungate/tungate/internal/nsrun"
)

// argv[1] of this program as one of the demo's processes. What it is to do comes in
// the first line of its stdin.
const (
	clientArg = "demo-client-process"
	serverArg = "demo-server-process"
)

// The names of the families, as a person reads them.
const (
	nameV4 = "IPv4"
	nameV6 = "IPv6"
)

// MaybeRun runs one of the demo's processes if this process is to be one; then main
// exits with code. main calls it before it reads flags.
func MaybeRun(ctx context.Context) (code int, ran bool) {
	if len(os.Args) != 2 || os.Args[1] != clientArg && os.Args[1] != serverArg {
		return 0, false
	}
	// ^C reaches the whole foreground group. It is for the gateway to answer:
	// these processes end with it.
	signal.Ignore(syscall.SIGINT)
	main := serverMain
	if os.Args[1] == clientArg {
		main = clientMain
	}
	if err := main(ctx, bufio.NewReader(os.Stdin), os.Stdout); err != nil {
		return 1, true // told on stdout
	}
	return 0, true
}

// clientMain is the client's main function.
func clientMain(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	var p plan
	if err := readLine(in, &p); err != nil {
		return err
	}
	return runClient(ctx, p, in, out)
}

func readLine(in *bufio.Reader, v any) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// greeting is the one line that the server writes.
type greeting struct {
	Ports  map[string]ports `json:",omitempty"` // by family
	Failed string           `json:",omitempty"`
}

// serverMain is the server's main function. It serves until its stdin ends, which
// is when the gateway ends, whatever ends it.
func serverMain(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	var seed uint64
	if err := readLine(in, &seed); err != nil {
		return err
	}
	v4, err := listen(ctx, netip.AddrFrom4([4]byte{127, 0, 0, 1}), seed)
	if err != nil {
		return errors.Join(err, json.NewEncoder(out).Encode(greeting{Failed: err.Error()}))
	}
	defer v4.close() //nolint:errcheck // the process ends
	g := greeting{Ports: map[string]ports{nameV4: v4.ports, nameV6: v4.ports}}
	// The client's IPv6 needs none of the host's: without ::1 it is led to
	// 127.0.0.1.
	if v6, err := listen(ctx, netip.IPv6Loopback(), seed); err == nil {
		defer v6.close() //nolint:errcheck // the process ends
		g.Ports[nameV6] = v6.ports
	}
	if err := json.NewEncoder(out).Encode(g); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// serverProcess is the server as the gateway sees it.
type serverProcess struct {
	ports map[string]ports // by family
	proc  *os.Process
	stdin *os.File // its end ends the server
}

// startServer starts the server and waits for its ports.
func startServer(seed uint64) (*serverProcess, error) {
	in, stdin, stdout, out, err := pipes()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	proc, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], serverArg},
		&os.ProcAttr{Files: []*os.File{in, out, os.Stderr}})
	in.Close() // the server has its own
	out.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the server's process cannot be started: %w", err), stdin.Close())
	}
	s := &serverProcess{proc: proc, stdin: stdin}
	var g greeting
	err = json.NewEncoder(stdin).Encode(seed)
	if err == nil {
		err = json.NewDecoder(stdout).Decode(&g)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("the server did not start: %w", err)
	case g.Failed != "":
		err = fmt.Errorf("the server cannot listen on the loopback: %s", g.Failed)
	default:
		s.ports = g.Ports
		return s, nil
	}
	return nil, errors.Join(err, s.close())
}

// close ends the server and waits for it.
func (s *serverProcess) close() error {
	err := s.stdin.Close()
	_, waitErr := s.proc.Wait()
	return errors.Join(err, waitErr)
}

// clientProcess is the client as the gateway sees it.
type clientProcess struct {
	child   *nsrun.Child
	events  *os.File // the client's stdout
	answers *os.File // and stdin
}

// newClient prepares the client. What it is to do it learns by start.
func newClient(ctx context.Context) (*clientProcess, error) {
	in, answers, events, out, err := pipes()
	if err != nil {
		return nil, err
	}
	defer in.Close() // the client has its own
	defer out.Close()
	child, err := nsrun.Start(ctx, nsrun.Spec{
		Command: []string{"/proc/self/exe", clientArg},
		Stdin:   in, Stdout: out, Stderr: os.Stderr,
	})
	if err != nil {
		return nil, errors.Join(err, events.Close(), answers.Close())
	}
	return &clientProcess{child: child, events: events, answers: answers}, nil
}

// start lets the client carry out p.
func (c *clientProcess) start(p plan) error {
	if err := json.NewEncoder(c.answers).Encode(p); err != nil {
		return err
	}
	return c.child.Release()
}

// end ends the client, whose results are in or no longer wanted, and waits for it.
func (c *clientProcess) end() error {
	if err := c.child.Signal(os.Kill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_, err := c.child.Wait()
	return err
}

// close ends the client, waits for it and closes the device.
func (c *clientProcess) close() error {
	return errors.Join(c.child.Close(), c.events.Close(), c.answers.Close())
}

// pipes returns the four ends of a process's stdin and stdout.
func pipes() (in, stdin, stdout, out *os.File, err error) {
	if in, stdin, err = os.Pipe(); err != nil {
		return nil, nil, nil, nil, err
	}
	if stdout, out, err = os.Pipe(); err != nil {
		return nil, nil, nil, nil, errors.Join(err, in.Close(), stdin.Close())
	}
	return in, stdin, stdout, out, nil
}
