package loop_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tungate/tungate/loop"
)

// TestAlarm: an alarm wakes a loop that has nothing else, once, and not too early.
func TestAlarm(t *testing.T) {
	l := start(t)
	rang := make(chan time.Time, 10)
	var a loop.Alarm
	a.Init(loop.ExpirerFunc(func() { rang <- time.Now() }))
	for _, d := range []time.Duration{0, time.Millisecond, 7 * time.Millisecond, 120 * time.Millisecond} {
		var set time.Time
		on(t, l, func() { set = time.Now(); l.SetAlarm(&a, d) })
		if after := (<-rang).Sub(set); after < d {
			t.Errorf("an alarm for %v rang after %v", d, after)
		}
	}
	on(t, l, func() {
		l.SetAlarm(&a, time.Hour)
		l.SetAlarm(&a, time.Millisecond)
	})
	<-rang
	on(t, l, func() {}) // a turn later
	if len(rang) > 0 {
		t.Error("it rang twice")
	}
}

// TestAlarms: several ring in the order of their times, and one may set itself again.
func TestAlarms(t *testing.T) {
	l := start(t)
	var order []int
	done := make(chan struct{})
	alarms := make([]loop.Alarm, 4)
	const ms = time.Millisecond
	delays := []time.Duration{30 * ms, 10 * ms, 40 * ms, 20 * ms}
	for i := range alarms {
		alarms[i].Init(loop.ExpirerFunc(func() {
			order = append(order, i)
			switch {
			case i == 1 && len(order) == 1:
				l.SetAlarm(&alarms[1], 100*ms)
			case len(order) == 5:
				close(done)
			}
		}))
	}
	on(t, l, func() {
		for i := range alarms {
			l.SetAlarm(&alarms[i], delays[i])
		}
	})
	<-done
	if want := []int{1, 3, 0, 2, 1}; !slices.Equal(order, want) {
		t.Errorf("rang %v, want %v", order, want)
	}
}
