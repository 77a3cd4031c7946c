package epollbridge_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/epollbridge"
)

// fdOf returns p's descriptor.
func fdOf(t testing.TB, p *epollbridge.Poller) int {
	t.Helper()
	fd, err := p.Fd()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// readable reports whether poll(2) finds fd readable now.
func readable(t testing.TB, fd int) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil {
		t.Fatal(err)
	}
	return fds[0].Revents == unix.POLLIN
}

// level checks that fd is readable, or not.
func level(t testing.TB, fd int, want bool, when string) {
	t.Helper()
	if got := readable(t, fd); got != want {
		t.Errorf("%s: readable is %v, want %v", when, got, want)
	}
}

// TestFdLevel: the descriptor is readable while Wait has something to look at.
func TestFdLevel(t *testing.T) {
	p, o := newPoller(t), new(object)
	fd := fdOf(t, p)
	level(t, fd, false, "empty")
	add(t, p, o, in, 1)
	level(t, fd, false, "not ready")
	o.become(in)
	level(t, fd, true, "ready")
	level(t, fd, true, "looked at")
	expect(t, p, event(in, 1))
	level(t, fd, true, "level-triggered and still ready")
	o.set(0)
	expect(t, p)
	level(t, fd, false, "ready no more")
	if err := p.Modify(&o.Registration, in|edge, 1); err != nil {
		t.Fatal(err)
	}
	o.become(in)
	level(t, fd, true, "ready by edge")
	expect(t, p, event(in, 1))
	level(t, fd, false, "edge was returned")
	o.tell(in)
	level(t, fd, true, "another edge")
	if err := p.Delete(&o.Registration); err != nil {
		t.Fatal(err)
	}
	level(t, fd, false, "deleted")
	p.Wake()
	level(t, fd, true, "woken")
	expect(t, p)
	level(t, fd, false, "Wake was seen")
}

// TestFdBesideWait: a Wait that looked at what there was and sleeps on leaves the
// descriptor as it found it.
func TestFdBesideWait(t *testing.T) {
	p, o := newPoller(t), new(object)
	fd := fdOf(t, p)
	add(t, p, o, in, 1)
	waiting := waitIn(p, -1)
	for i := range uint64(3) {
		eventually(t, "asleep", func() bool { return p.Stats().Sleeping == 1 })
		o.tell(in) // and there is nothing
		eventually(t, "looked at", func() bool { return p.Stats().Stale == i+1 && p.Stats().Sleeping == 1 })
		eventually(t, "not readable", func() bool { return !readable(t, fd) })
	}
	o.become(in)
	if r := await(t, "IN", waiting); r.err != nil || len(r.events) != 1 {
		t.Errorf("got %v", r)
	}
	level(t, fd, true, "level-triggered and ready")
}

// TestFdAfterDeleteInPass: what a Wait put back and somebody deleted before the
// Wait ended is not there.
func TestFdAfterDeleteInPass(t *testing.T) {
	p, back, last := newPoller(t), new(object), new(object)
	fd := fdOf(t, p)
	back.set(in)
	add(t, p, back, in, 1)
	add(t, p, last, in, 2)
	last.tell(in)
	last.hook = func() {
		last.hook = nil
		if err := p.Delete(&back.Registration); err != nil {
			t.Error(err)
		}
	}
	expect(t, p, event(in, 1))
	level(t, fd, false, "deleted by the way")
}

// TestFdLate: a descriptor made late tells of what was ready before.
func TestFdLate(t *testing.T) {
	p, o := newPoller(t), new(object)
	o.set(in)
	add(t, p, o, in, 1)
	fd := fdOf(t, p)
	level(t, fd, true, "ready before")
	if again := fdOf(t, p); again != fd {
		t.Errorf("descriptor %d, then %d", fd, again)
	}
}

// TestFdNests: a Poller in a real epoll is woken there.
func TestFdNests(t *testing.T) {
	p, o := newPoller(t), new(object)
	add(t, p, o, in, 1)
	outer, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(outer)
	if err := unix.EpollCtl(outer, unix.EPOLL_CTL_ADD, fdOf(t, p), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: 7}); err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	for range 3 {
		go func() {
			var events [1]unix.EpollEvent
			n, err := unix.EpollWait(outer, events[:], int(patience.Milliseconds()))
			if err == nil && (n != 1 || events[0].Fd != 7) {
				err = unix.ETIMEDOUT
			}
			woken <- err
		}()
		o.become(in)
		if err := await(t, "epoll_wait", woken); err != nil {
			t.Fatal(err)
		}
		expect(t, p, event(in, 1))
		o.set(0)
		expect(t, p)
	}
}

// TestFdUnderConcurrency: whoever changes the level last levels the descriptor.
func TestFdUnderConcurrency(t *testing.T) {
	p := newPoller(t)
	fd := fdOf(t, p)
	var objects [4]object
	done := make(chan struct{})
	for i := range objects {
		o := &objects[i]
		add(t, p, o, in|edge, uint64(i))
		go func() {
			for range 2000 {
				o.become(in)
			}
			done <- struct{}{}
		}()
	}
	for running := len(objects); running > 0; {
		select {
		case <-done:
			running--
		default:
			look(t, p)
		}
	}
	look(t, p)
	level(t, fd, false, "all was returned")
	objects[0].tell(in)
	level(t, fd, true, "one more")
}
