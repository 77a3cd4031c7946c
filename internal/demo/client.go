package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// client carries out a plan with kernel sockets.
type client struct {
	plan    plan
	dialer  net.Dialer
	http    *http.Client
	events  *json.Encoder
	answers *bufio.Reader
	checked atomic.Int64
}

// runClient carries out p. It writes events to out and reads an empty line from in
// after each that asks for a sample.
func runClient(ctx context.Context, p plan, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Limit, fmt.Errorf("it was not done within %v", p.Limit))
	defer cancel()
	c := &client{
		plan:    p,
		dialer:  net.Dialer{Control: tuneSocket},
		events:  json.NewEncoder(out),
		answers: bufio.NewReader(in),
	}
	// A connection for each request, since connections are what is shown.
	c.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.dialer.DialContext}}
	r, err := c.run(ctx)
	if err != nil {
		return errors.Join(err, c.events.Encode(event{Failed: err.Error()}))
	}
	return c.events.Encode(event{Result: r})
}

func (c *client) say(format string, args ...any) {
	_ = c.events.Encode(event{Say: fmt.Sprintf(format, args...)}) // the last event fails as well
}

// sample asks for the memory's size and waits until it was taken.
func (c *client) sample(name string) error {
	if err := c.events.Encode(event{Sample: name}); err != nil {
		return err
	}
	_, err := c.answers.ReadString('\n')
	return err
}

// run goes through the steps. Memory comes before bulk: buffers of a bulk transfer
// would hide the difference that is sought.
func (c *client) run(ctx context.Context) (*results, error) {
	r := &results{Families: make([]familyResult, len(c.plan.Families))}
	steps := []struct {
		name string
		do   func(context.Context, target, *familyResult) error
	}{
		{"connections", c.connections},
		{"idle connections", nil},
		{"round trips", c.roundTrips},
		{"bulk up", c.bulkUp},
		{"bulk down", c.bulkDown},
	}
	for _, s := range steps {
		if s.do == nil {
			if err := c.idle(ctx, r); err != nil {
				return nil, stepError(ctx, s.name, err)
			}
			continue
		}
		for i, f := range c.plan.Families {
			r.Families[i].Name = f.Name
			if err := s.do(ctx, f, &r.Families[i]); err != nil {
				return nil, stepError(ctx, s.name+" over "+f.Name, err)
			}
		}
	}
	r.Checked = c.checked.Load()
	return r, nil
}

func stepError(ctx context.Context, step string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done() // dial gave the connection ctx's deadline
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// connections makes many short ones, each with a body up or down.
func (c *client) connections(ctx context.Context, f target, r *familyResult) error {
	n := c.plan.Connections
	c.say("%s: %s connections, %d at once, each with an HTTP body of %d KiB up or down", f.Name, thousands(int64(n)), c.plan.AtOnce, bodySize>>10)
	start := time.Now()
	done, err := c.each(n, func(i int) error {
		id := uint64(i)
		if i%2 == 0 {
			return c.get(ctx, f.HTTP, id)
		}
		return c.post(ctx, f.HTTP, id)
	})
	r.Connections, r.AtOnce, r.ConnectTime = done, min(done, c.plan.AtOnce), time.Since(start)
	return err
}

// each calls do for 0 to n-1 on AtOnce goroutines, until there was an error or its
// patience ends. It returns how many calls there were, and the first error.
func (c *client) each(n int, do func(i int) error) (int, error) {
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		calls atomic.Int64
		first atomic.Pointer[error]
		end   = time.Now().Add(c.plan.Patience)
	)
	for range min(n, c.plan.AtOnce) {
		wg.Go(func() {
			for first.Load() == nil && time.Now().Before(end) {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				calls.Add(1)
				if err := do(i); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		return int(calls.Load()), *err
	}
	return int(calls.Load()), nil
}

func (c *client) body(id uint64) io.Reader {
	return io.LimitReader(seeded(c.plan.Seed, id), bodySize)
}

// get downloads stream id and compares it.
func (c *client) get(ctx context.Context, to netip.AddrPort, id uint64) error {
	url := fmt.Sprintf("http://%s/?id=%d&n=%d", to, id, bodySize)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	got, n, err := c.do(req, sumOf)
	if err != nil {
		return err
	}
	return c.compare("download", id, got, n)
}

// post uploads stream id; the answer is the sum of what arrived.
func (c *client) post(ctx context.Context, to netip.AddrPort, id uint64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://%s/", to), c.body(id))
	if err != nil {
		return err
	}
	req.ContentLength = bodySize
	got, _, err := c.do(req, func(r io.Reader) (string, int64, error) {
		b, err := io.ReadAll(r)
		return string(b), 0, err
	})
	if err != nil {
		return err
	}
	return c.compare("upload", id, got, bodySize)
}

// do sends req and returns what read makes of the answer.
func (c *client) do(req *http.Request, read func(io.Reader) (string, int64, error)) (string, int64, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("the server answered %s", resp.Status)
	}
	return read(resp.Body)
}

// compare checks the sum of n bytes of stream id that arrived.
func (c *client) compare(what string, id uint64, got string, n int64) error {
	want, _, err := sumOf(c.body(id))
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s %d arrived changed: %d bytes with SHA-256 %.16s, not %.16s", what, id, n, got, want)
	}
	c.checked.Add(n)
	return nil
}

// idle opens connections that do nothing, by turns over the families.
func (c *client) idle(ctx context.Context, r *results) error {
	if err := c.sample(sampleBase); err != nil {
		return err
	}
	c.say("%s idle connections, and the gateway's memory before and after", thousands(int64(c.plan.Idle)))
	conns := make([]net.Conn, c.plan.Idle)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	opened, err := c.each(len(conns), func(i int) error {
		f := c.plan.Families[i%len(c.plan.Families)]
		conn, err := c.dial(ctx, f.Echo)
		if err != nil {
			return err
		}
		conns[i] = conn
		return roundTrip(conn, i)
	})
	if err != nil {
		return err
	}
	r.Idle = opened
	c.checked.Add(int64(opened))
	return c.sample(sampleIdle)
}

// dial connects; what is done with the connection ends with ctx.
func (c *client) dial(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	conn, err := c.dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no TCP connection", conn), conn.Close())
	}
	if at, ok := ctx.Deadline(); ok {
		err = tcp.SetDeadline(at)
	}
	return tcp, err
}

// roundTrip sends one byte, which is i's lowest, and waits for it.
func roundTrip(conn io.ReadWriter, i int) error {
	b := byte(i & 0xff)
	buf := [1]byte{b}
	if _, err := conn.Write(buf[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buf[:]); err != nil {
		return err
	}
	if buf[0] != b {
		return fmt.Errorf("byte 0x%02x came back as 0x%02x", b, buf[0])
	}
	return nil
}

// roundTrips times the echo of one byte.
func (c *client) roundTrips(ctx context.Context, f target, r *familyResult) error {
	c.say("%s: %s round trips of one byte", f.Name, thousands(int64(c.plan.RoundTrips)))
	conn, err := c.dial(ctx, f.Echo)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	took := make([]time.Duration, 0, min(c.plan.RoundTrips, 1<<16))
	end := time.Now().Add(c.plan.Patience)
	for now := time.Now(); len(took) == 0 || len(took) < c.plan.RoundTrips && now.Before(end); {
		if err := roundTrip(conn, len(took)); err != nil {
			return err
		}
		start := now
		now = time.Now()
		took = append(took, now.Sub(start))
	}
	c.checked.Add(int64(len(took)))
	slices.Sort(took)
	r.P50, r.P99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}

// bulkUp uploads for the plan's time; the server compares and measures.
func (c *client) bulkUp(ctx context.Context, f target, r *familyResult) error {
	c.say("%s: bulk upload for %v, every byte compared", f.Name, c.plan.Bulk)
	conn, err := c.dial(ctx, f.Bulk)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte{bulkUp}); err != nil {
		return err
	}
	end := time.Now().Add(c.plan.Bulk)
	sent, err := sendRecords(conn, c.plan.Seed, func() bool { return time.Now().After(end) })
	if err == nil {
		err = conn.CloseWrite()
	}
	// A server that found a fault says so and hangs up on the sender: its
	// report is better than the sender's error.
	var rep bulkReport
	if e := json.NewDecoder(conn).Decode(&rep); e != nil {
		return errors.Join(err, e)
	}
	switch {
	case rep.Failed != "":
		return errors.New(strings.TrimSpace(rep.Failed))
	case err != nil:
		return err
	case rep.Bytes != sent:
		return fmt.Errorf("%d bytes were sent and %d arrived", sent, rep.Bytes)
	}
	r.Up = rate{Bytes: rep.Bytes, Took: rep.Took}
	c.checked.Add(rep.Bytes)
	return nil
}

// bulkDown downloads for the plan's time, then lets the server finish its record.
func (c *client) bulkDown(ctx context.Context, f target, r *familyResult) error {
	c.say("%s: bulk download for %v, every byte compared", f.Name, c.plan.Bulk)
	conn, err := c.dial(ctx, f.Bulk)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte{bulkDown}); err != nil {
		return err
	}
	enough := time.AfterFunc(c.plan.Bulk, func() { _ = conn.CloseWrite() }) // a failed one shows in the read
	defer enough.Stop()
	v, err := newVerifier(c.plan.Seed)
	if err == nil {
		err = v.readAll(conn)
	}
	if err != nil {
		return err
	}
	r.Down = rate{Bytes: v.total, Took: v.took()}
	c.checked.Add(v.total)
	return nil
}
