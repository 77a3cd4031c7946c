package epollbridge_test

import (
	"errors"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tungate/tungate/epollbridge"
)

// TestErrors: what is wrong is said with epoll_ctl(2)'s errnos. That they are the
// same as the kernel's in every state, TestLikeEpollOverEventfds shows.
func TestErrors(t *testing.T) {
	p, other := newPoller(t), newPoller(t)
	o := new(object)
	r := &o.Registration
	for _, tc := range []struct {
		what string
		err  error
		want error
	}{
		{"Modify before Add", p.Modify(r, in, 0), unix.ENOENT},
		{"Delete before Add", p.Delete(r), unix.ENOENT},
		{"Add of nil", p.Add(r, nil, in, 0), unix.EINVAL},
		{"Add with nil", p.Add(nil, o, in, 0), unix.EINVAL},
		{"Modify of nil", p.Modify(nil, in, 0), unix.EINVAL},
		{"Delete of nil", p.Delete(nil), unix.EINVAL},
		{"Add of unknown bits", p.Add(r, o, unix.EPOLLPRI, 0), unix.EINVAL},
		{"Add of EXCLUSIVE with RDHUP", p.Add(r, o, excl|rdhup, 0), unix.EINVAL},
		{"Add of EXCLUSIVE with ONESHOT", p.Add(r, o, excl|once, 0), unix.EINVAL},
		{"Add", p.Add(r, o, in, 0), nil},
		{"Add again", p.Add(r, o, in, 0), unix.EEXIST},
		{"Add elsewhere", other.Add(r, o, in, 0), unix.EEXIST},
		{"Modify elsewhere", other.Modify(r, in, 0), unix.ENOENT},
		{"Delete elsewhere", other.Delete(r), unix.ENOENT},
		{"Modify to EXCLUSIVE", p.Modify(r, in|excl, 0), unix.EINVAL},
		{"Modify to unknown bits", p.Modify(r, unix.EPOLLWAKEUP, 0), unix.EINVAL},
		{"Modify", p.Modify(r, out, 0), nil},
		{"Delete", p.Delete(r), nil},
		{"Delete again", p.Delete(r), unix.ENOENT},
		{"Add elsewhere after Delete", other.Add(r, o, in|excl, 0), nil},
		{"Modify of EXCLUSIVE", other.Modify(r, in, 0), unix.EINVAL},
	} {
		if tc.err != tc.want { //nolint:errorlint // the very errno is promised
			t.Errorf("%s: %v, want %v", tc.what, tc.err, tc.want)
		}
	}
	if _, err := p.Wait(nil, 0); err != unix.EINVAL { //nolint:errorlint // the very errno is promised
		t.Errorf("Wait without room: %v, want EINVAL", err)
	}
}

// TestClosed: every method of a closed Poller says so, as EBADF and as
// net.ErrClosed, but Delete, which still has something to do.
func TestClosed(t *testing.T) {
	p := epollbridge.New()
	o := new(object)
	add(t, p, o, in, 1)
	fdOf(t, p)
	o.become(in)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	o.tell(in)
	_, wait := p.Wait(make([]epollbridge.Event, 1), -1)
	_, fd := p.Fd()
	errs := map[string]error{
		"Add": p.Add(new(epollbridge.Registration), o, in, 0), "Modify": p.Modify(&o.Registration, in, 0),
		"Wait": wait, "Fd": fd,
	}
	if err := p.Delete(&o.Registration); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if !o.queue.IsEmpty() {
		t.Error("Delete after Close left the object's queue as it was")
	}
	errs["second Delete"] = p.Delete(&o.Registration)
	for what, err := range errs {
		if !errors.Is(err, net.ErrClosed) || !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: %v, want EBADF and net.ErrClosed", what, err)
		}
	}
	p.Wake()
	other := newPoller(t)
	add(t, other, o, in, 2)
	expect(t, other, event(in, 2))
}

// refusing is an object that cannot be registered with, and notifies nevertheless.
type refusing struct{ object }

func (*refusing) EventRegister(e *waiter.Entry) error {
	e.NotifyEvent(waiter.EventIn)
	return unix.EMFILE
}

// TestRegisterFails hands on what EventRegister says and keeps nothing.
func TestRegisterFails(t *testing.T) {
	p := newPoller(t)
	o := new(refusing)
	o.set(in)
	for _, object := range []epollbridge.Waitable{o, epollbridge.Share(o)} {
		for _, mode := range []epollbridge.Events{0, excl} {
			if err := p.Add(&o.Registration, object, in|mode, 1); !errors.Is(err, unix.EMFILE) {
				t.Errorf("Add: %v, want EMFILE", err)
			}
		}
	}
	expect(t, p)
	if n := p.Stats().Registered; n != 0 {
		t.Errorf("%d registrations", n)
	}
	if err := p.Add(&o.Registration, &o.object, in, 2); err != nil {
		t.Errorf("Add after a failed one: %v", err)
	}
	expect(t, p, event(in, 2))
}

// TestModes reads like epoll(7).
func TestModes(t *testing.T) {
	for _, tc := range []struct {
		mode                          epollbridge.Events
		second, told, drained, rearms []epollbridge.Event
	}{
		{0, one(in, 1), one(in, 1), nil, one(in, 2)},
		{edge, nil, one(in, 1), nil, one(in, 2)},
		{once, nil, nil, nil, one(in, 2)},
		{edge | once, nil, nil, nil, one(in, 2)},
	} {
		t.Run(tc.mode.String(), func(t *testing.T) {
			p, o := newPoller(t), new(object)
			add(t, p, o, in|tc.mode, 1)
			expect(t, p)
			o.become(in)
			expect(t, p, event(in, 1))
			expect(t, p, tc.second...)
			o.tell(in)
			expect(t, p, tc.told...)
			o.set(0)
			expect(t, p, tc.drained...)
			if err := p.Modify(&o.Registration, in|tc.mode, 2); err != nil {
				t.Fatal(err)
			}
			expect(t, p)
			o.become(in)
			expect(t, p, tc.rearms...)
		})
	}
}

func one(e epollbridge.Events, data uint64) []epollbridge.Event {
	return []epollbridge.Event{event(e, data)}
}

// TestModifyTells: Modify reports what the object is ready for already, and wakes.
func TestModifyTells(t *testing.T) {
	p, o := newPoller(t), new(object)
	o.set(in)
	add(t, p, o, out, 1)
	expect(t, p)
	waiting := waitIn(p, -1)
	if err := p.Modify(&o.Registration, in|edge, 1<<63|2); err != nil {
		t.Fatal(err)
	}
	if r := await(t, "IN", waiting); r.err != nil || r.events[0] != event(in, 1<<63|2) {
		t.Errorf("got %v", r)
	}
}

// TestNotified only looks at registrations that a notification concerns.
func TestNotified(t *testing.T) {
	p, o := newPoller(t), new(object)
	add(t, p, o, in, 1)
	asked := o.asked.Load()
	o.become(out)
	o.tell(rdhup)
	expect(t, p)
	if o.asked.Load() != asked {
		t.Error("asked for readiness after a notification of something else")
	}
	o.become(in)
	o.set(0)
	expect(t, p)
	if s := p.Stats(); s.Stale != 1 || s.Delivered != 0 {
		t.Errorf("%+v, want one stale look", s)
	}
}

// TestTurns: no registration keeps another from its turn, however little room
// there is, and none comes twice in one Wait.
func TestTurns(t *testing.T) {
	p := newPoller(t)
	var objects [5]object
	for i := range objects {
		objects[i].set(in)
		add(t, p, &objects[i], in, uint64(i))
	}
	events := make([]epollbridge.Event, 3)
	next := uint64(0)
	for range 20 {
		n, err := p.Wait(events, -1)
		if n != 3 || err != nil {
			t.Fatalf("%d events, %v", n, err)
		}
		for _, e := range events {
			if e.Data != next {
				t.Fatalf("%v, want %d to come next", events, next)
			}
			next = (next + 1) % uint64(len(objects))
		}
	}
}

// TestSize: what an idle connection pays.
func TestSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 && unsafe.Sizeof(epollbridge.Registration{}) > 104 {
		t.Errorf("a Registration has %d bytes", unsafe.Sizeof(epollbridge.Registration{}))
	}
}

func TestEventsString(t *testing.T) {
	for e, want := range map[epollbridge.Events]string{
		0:                        "0",
		in:                       "IN",
		in | rdhup | edge:        "IN|RDHUP|ET",
		out | errs | hup | once:  "OUT|ERR|HUP|ONESHOT",
		excl | unix.EPOLLPRI:     "EXCLUSIVE|0x2",
		epollbridge.Events(0x40): "0x40",
	} {
		if got := e.String(); got != want {
			t.Errorf("%#x is %q, want %q", uint32(e), got, want)
		}
	}
}
