package link

import "time"

// pressedAfter is how long a queue may have frames without a pause before it is
// pressed. A flood of twice what can be served puts some 500 frames into the queue
// meanwhile, of the 16,384 that it holds (tundev). Reading alone is fast enough to
// catch up, and then there is another such while in which all is answered.
const pressedAfter = time.Millisecond

// press tells whether frames come to a queue faster than they are served.
type press struct {
	left    bool          // the last batch left frames behind, as far as it knows
	since   time.Duration // when the first batch began behind one that did not
	pressed bool
}

// begin is for each batch.
func (p *press) begin(now time.Duration) {
	if !p.left {
		p.left, p.since = true, now
	}
	p.pressed = now-p.since > pressedAfter
}
