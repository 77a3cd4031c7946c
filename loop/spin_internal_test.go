package loop

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPatience: looking instead of sleeping begins when waits are short, and ends with
// the first long one.
func TestPatience(t *testing.T) {
	p := patience{mean: longest}
	short := 0
	for ; !p.spins(); short++ {
		p.note(5 * time.Microsecond)
	}
	if short < 8 || short > 40 {
		t.Errorf("began after %d short waits", short)
	}
	for range 100 {
		if p.note(spinBelow / 2); !p.spins() {
			t.Fatal("ended although waits are short")
		}
	}
	if p.note(time.Hour); p.spins() {
		t.Error("goes on after a long wait")
	}
	if p = (patience{alone: true}); p.spins() {
		t.Error("spins on the only processor")
	}
}

// TestSpin: what comes while the loop looks is seen at once, by a descriptor as by a
// Post that need not wake it; if nothing comes it ends.
func TestSpin(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	soon := func() time.Time { return time.Now().Add(time.Hour) } // for as long as it takes
	if _, came := l.spin(time.Now().Add(-spinFor)); came {
		t.Error("something came where nothing was")
	}
	var task Task
	task.Init(RunnerFunc(func() {}))
	l.Post(&task)
	if n, came := l.spin(soon()); n != 0 || !came {
		t.Errorf("a task: %d events, %v", n, came)
	}
	l.runTasks()
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	if _, err := unix.Write(l.wakefd, one); err != nil {
		t.Fatal(err)
	}
	if n, came := l.spin(soon()); n != 1 || !came {
		t.Errorf("a descriptor: %d events, %v", n, came)
	}
}
