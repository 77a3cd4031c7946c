package epollbridge

import "fmt"

// Check returns what is wrong with p while nobody uses it.
func (p *Poller) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	loud := 0
	var prev *Registration
	for r := p.ready.head; r != nil; prev, r = r, r.next {
		switch {
		case r.prev != prev:
			return fmt.Errorf("the ready list is broken at %p", r)
		case r.poller.Load() != p:
			return fmt.Errorf("%p is in the ready list and not added", r)
		case r.state&^quiet != linked:
			return fmt.Errorf("%p is in the ready list in state %#x", r, r.state)
		case prev != nil && prev.seq >= r.seq:
			return fmt.Errorf("%p is older than what is before it", r)
		case !r.events.armed():
			return fmt.Errorf("%p is disarmed and in the ready list", r)
		}
		if r.state&quiet == 0 {
			loud++
		}
	}
	if p.ready.tail != prev || p.loud != loud {
		return fmt.Errorf("the ready list ends at %p, not %p, with %d loud, not %d", prev, p.ready.tail, loud, p.loud)
	}
	if p.waiting != 0 || p.blocked != 0 || len(p.sleepers) != 0 {
		return fmt.Errorf("%d in Wait, %d of them asleep, %d in hold", p.waiting, len(p.sleepers), p.blocked)
	}
	if level := !p.idle(); p.fd.level.Load() != level || p.fd.fd >= 0 && p.fd.raised != level {
		return fmt.Errorf("the level is %v, the descriptor's %v, and should be %v", p.fd.level.Load(), p.fd.raised, level)
	}
	return nil
}

// Blocked returns how many calls wait for another to let go of a registration.
func (p *Poller) Blocked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocked
}
