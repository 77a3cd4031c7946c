package loop

import (
	"slices"
	"time"
)

// Alarm calls its Expirer once, to the millisecond, where a Timer is late by up to a
// tick. Each costs every turn a comparison while it is set, so a loop has but a few.
type Alarm struct {
	expirer Expirer
	at      time.Time
}

// Init sets what the alarm calls, before the first SetAlarm.
func (a *Alarm) Init(e Expirer) { a.expirer = e }

// SetAlarm lets a call in d, in place of any time it was set to. It must be called on
// the loop's goroutine.
func (l *Loop) SetAlarm(a *Alarm, d time.Duration) {
	a.at = time.Now().Add(d)
	if !slices.Contains(l.alarms, a) {
		l.alarms = append(l.alarms, a)
	}
}

// wait is how long a sleep may last, in milliseconds; negative is without end.
func (l *Loop) wait(now time.Time) int {
	ms := l.wheel.wait(now)
	for _, a := range l.alarms {
		due := max(0, int((a.at.Sub(now)+time.Millisecond-1)/time.Millisecond))
		if ms < 0 || due < ms {
			ms = due
		}
	}
	return ms
}

// runAlarms calls what is due; what that sets again is for a later turn.
func (l *Loop) runAlarms(now time.Time) {
	for i, a := range slices.Backward(l.alarms) {
		if !a.at.After(now) {
			l.alarms = slices.Delete(l.alarms, i, i+1)
			l.stats.timers.Add(1)
			a.expirer.Expire()
		}
	}
}
