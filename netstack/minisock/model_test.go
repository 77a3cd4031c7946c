package minisock

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// The model is the protocol written down once more, as simply as it can be: a map of
// flows, a clock, no lists, no bits, distances in place of comparisons. It says what
// must become of a segment and what the answer is.
type model struct {
	now   time.Duration
	flows map[pair]*mflow
}

type mflow struct {
	state      State
	ts         bool
	recent     uint32 // the client's timestamp
	una, nxt   uint32 // ours
	rnxt, rack uint32 // the client's: seen, acknowledged
	edge       uint32 // of the window given
	most       uint32 // widest window got
	theirFIN   *uint32
	ourFIN     *uint32
	first      bool // our FIN was first
	answered   time.Duration
	ends       time.Duration // when the state times out; 0 is never
	again      time.Duration // when the SYN-ACK is repeated
	wait       time.Duration
}

// answer is what the model expects to be sent.
type answer struct {
	flags    uint8
	seq, ack uint32
}

// far reports whether a is beyond b on the circle.
func far(a, b uint32) bool { return a != b && a-b <= 1<<31 }

const modelWindow = 1000 // unscaled, both ways

func (m *model) challenge(f *mflow) *answer {
	if m.now-f.answered < 500*time.Millisecond {
		return nil
	}
	f.answered = m.now
	return &answer{ack, f.nxt, f.rack}
}

// input says what becomes of a client's segment. isn is what the table chose, where
// it had a choice.
func (m *model) input(p pair, s seg, tsVal uint32, hasTS bool, isn func() uint32) (Verdict, *answer) {
	f := m.flows[p]
	flags := s.flags & decisive
	switch {
	case flags&syn != 0 && flags&(fin|rst) != 0, flags&(syn|rst|ack) == 0:
		return Dropped, nil
	case f == nil && flags&rst != 0:
		return Dropped, nil
	case f == nil && flags == syn:
		return Dropped, m.begin(p, s, tsVal, hasTS, isn)
	case f == nil && flags&syn != 0:
		return Dropped, nil
	case f == nil:
		return Dropped, &answer{rst, s.ack, 0}
	}
	old := hasTS && f.ts && far(f.recent, tsVal)
	switch f.state {
	case SynReceived:
		return m.handshake(p, f, s, tsVal, hasTS, old)
	case TimeWait, Linger:
		return m.after(p, f, s, tsVal, hasTS, old, isn)
	default:
	}
	return m.connection(p, f, s, tsVal, hasTS, old)
}

func (m *model) begin(p pair, s seg, tsVal uint32, hasTS bool, isn func() uint32) *answer {
	n := isn()
	f := &mflow{
		state: SynReceived, ts: hasTS, recent: tsVal, una: n + 1, nxt: n + 1, rnxt: s.seq + 1, rack: s.seq + 1,
		edge: s.seq + 1 + modelWindow, answered: m.now - time.Second,
		again: m.now + time.Second, wait: time.Second, ends: m.now + 10*time.Second,
	}
	m.flows[p] = f
	return &answer{syn | ack, n, s.seq + 1}
}

func (m *model) handshake(p pair, f *mflow, s seg, tsVal uint32, hasTS, old bool) (Verdict, *answer) {
	switch {
	case s.flags&rst != 0:
		if s.seq == f.rack {
			delete(m.flows, p)
		}
		return Dropped, nil
	case s.flags&(syn|ack) == syn && s.seq+1 == f.rack:
		if m.now-f.answered < 500*time.Millisecond {
			return Dropped, nil
		}
		f.answered = m.now
		if hasTS && !far(f.recent, tsVal) {
			f.recent = tsVal
		}
		return Dropped, &answer{syn | ack, f.nxt - 1, f.rack}
	case s.flags&syn != 0:
		return Dropped, m.challenge(f)
	case s.ack != f.nxt:
		return Dropped, &answer{rst, s.ack, 0}
	case s.seq-f.rack >= modelWindow || old:
		return Dropped, m.challenge(f)
	}
	if hasTS && f.ts {
		f.recent = tsVal
	}
	f.state, f.ends, f.again, f.most = Established, 0, 0, uint32(s.wnd)
	return Create, nil
}

func (m *model) connection(p pair, f *mflow, s seg, tsVal uint32, hasTS, old bool) (Verdict, *answer) {
	switch {
	case s.flags&syn != 0:
		return Dropped, m.challenge(f)
	case s.flags&rst != 0 && (s.seq == f.rack || s.seq == f.rnxt):
		if f.rack == f.rnxt {
			delete(m.flows, p)
		}
		return Pass, nil
	case s.flags&rst != 0 && s.seq-f.rack < f.edge-f.rack:
		return Dropped, m.challenge(f)
	case s.flags&rst != 0:
		return Dropped, nil
	case old, far(s.ack, f.nxt), far(f.una-max(f.most, 65536), s.ack):
		return Dropped, m.challenge(f)
	}
	end := s.seq + uint32(s.data)
	if s.flags&fin != 0 {
		end++
	}
	if far(f.rack, end) || far(s.seq, f.edge) { // out of the window: not noted
		return Pass, nil
	}
	limit := f.edge
	if s.flags&fin != 0 && !far(end, f.edge+1) {
		limit++
		if f.theirFIN == nil {
			f.theirFIN = &end
		}
	}
	seen := end
	if far(seen, limit) {
		seen = limit
	}
	if far(seen, f.rnxt) {
		f.rnxt = seen
	}
	if far(s.ack, f.una) {
		f.una = s.ack
	}
	f.most = max(f.most, uint32(s.wnd))
	if hasTS && !far(s.seq, f.rack) {
		f.recent = tsVal
	}
	m.move(f)
	return Pass, nil
}

// move finds the state that the FINs and their ACKs make.
func (m *model) move(f *mflow) {
	acked := f.ourFIN != nil && !far(*f.ourFIN, f.una)
	theirs := f.theirFIN != nil && !far(*f.theirFIN, f.rack)
	switch {
	case acked && theirs && f.first:
		f.state, f.ends = TimeWait, m.now+time.Minute
	case acked && theirs:
		f.state, f.ends = Linger, m.now+time.Second
	case f.ourFIN == nil && f.theirFIN == nil:
	case f.ourFIN == nil:
		f.state = CloseWait
	case acked:
		f.state = FinWait2
	case f.theirFIN == nil:
		f.state = FinWait1
	case f.first:
		f.state = Closing
	default:
		f.state = LastAck
	}
}

func (m *model) after(p pair, f *mflow, s seg, tsVal uint32, hasTS, old bool, isn func() uint32) (Verdict, *answer) {
	switch {
	case s.flags&rst != 0:
		return Dropped, nil
	case s.flags&(syn|ack) == syn && !old && (f.state == Linger || !far(f.rnxt, s.seq) || hasTS && f.ts && far(tsVal, f.recent)):
		return Dropped, m.begin(p, s, tsVal, hasTS, isn)
	case s.flags&(syn|fin) == 0 && s.data == 0 && s.seq == f.rack && !old:
		return Dropped, nil
	}
	if f.state == TimeWait && (s.flags&(syn|ack) != syn || old) {
		f.ends = m.now + time.Minute
	}
	return Dropped, m.challenge(f)
}

// pass lets time go on, and returns the SYN-ACKs that are repeated by then.
func (m *model) pass(d time.Duration) (repeated int) {
	m.now += d
	for p, f := range m.flows {
		if f.ends != 0 && f.ends <= m.now {
			delete(m.flows, p)
		} else if f.again != 0 && f.again <= m.now {
			repeated++
			f.wait *= 2
			f.again = m.now + f.wait
			switch f.wait {
			case 8 * time.Second: // the last one has what is left of 10 s
				f.again, f.ends = 0, m.now+3*time.Second
			default:
				f.ends = m.now + time.Hour
			}
		}
	}
	return repeated
}

// script is the random choices of a run.
type script struct {
	data []byte
	at   int
}

func (s *script) next(n int) int {
	if s.at >= len(s.data) {
		return 0
	}
	s.at++
	return int(s.data[s.at-1]) % n
}

func (s *script) done() bool { return s.at >= len(s.data) }

// around is a number at or near one that counts.
func (s *script) around(at ...uint32) uint32 {
	v := at[s.next(len(at))]
	switch s.next(8) {
	case 0:
		return v + 1
	case 1:
		return v - 1
	case 2:
		return v + uint32(s.next(200))
	case 3:
		return v + uint32(s.next(256))<<24
	}
	return v
}

func runModel(t *testing.T, data []byte) {
	t.Helper()
	r := newRig(t, func(o *Options) {
		o.Backlog = 16 // small tables are made sooner
		o.ResetRate, o.ChallengeRate = 1e9, 1e9
		o.Local = Local{Window: modelWindow}
	})
	m := &model{now: r.now, flows: map[pair]*mflow{}}
	s := &script{data: data}
	handles := map[pair]Handle{}
	offset := map[pair]uint32{} // what is added to the stack's numbers
	for step := 0; !s.done(); step++ {
		p := []pair{flow4, flow6, {flow4.src, server4Other}}[s.next(3)]
		r.sent = nil
		switch s.next(8) {
		case 0, 1:
			d := []time.Duration{time.Millisecond, 250 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, time.Minute}[s.next(6)]
			// In small steps: a tick that is late shifts what follows it, here and there.
			for range d / (time.Second / 4) {
				modelTick(r, m, time.Second/4)
			}
			modelTick(r, m, d%(time.Second/4))
		case 2, 3:
			modelOutput(r, m, s, p, offset[p])
		default:
			modelInput(r, m, s, p, handles, offset)
		}
		compareModel(r, m, step)
		if f := m.flows[p]; f != nil && f.state.connected() {
			c, ok := r.t.resolve(handles[p])
			if !ok {
				r.Fatalf("step %d: the record is lost", step)
			}
			if c.cliNxt != f.rnxt || c.rcvAck != f.rack || c.sndUna != f.una || c.sndNxt != f.nxt || c.rcvMax != f.edge || f.ts && c.tsRecent != f.recent {
				r.Fatalf("step %d: %+v, want %+v", step, c.record, f)
			}
			c.unlock()
		}
	}
	// All ends in the end.
	for p, f := range m.flows {
		if f.state.connected() {
			r.t.Release(handles[p])
			delete(m.flows, p)
		}
	}
	for range 70 {
		r.tick(time.Second)
	}
	r.empty()
}

var server4Other = addrPort([4]byte{203, 0, 113, 10}, 443)

func modelTick(r *rig, m *model, d time.Duration) {
	r.Helper()
	r.sent = nil
	r.tick(d)
	if want := m.pass(d); len(r.sent) != want {
		r.Fatalf("%d sent by Tick, want %d", len(r.sent), want)
	}
}

func modelInput(r *rig, m *model, s *script, p pair, handles map[pair]Handle, offset map[pair]uint32) {
	r.Helper()
	f := m.flows[p]
	if f == nil {
		f = &mflow{nxt: 7, una: 7, rnxt: 1 << 31, rack: 1 << 31, edge: 1<<31 + 50, recent: 100}
	}
	sg := seg{wnd: uint16(100 + s.next(256)), data: s.next(3) * s.next(100)}
	sg.flags = []uint8{syn, ack, ack, ack, ack | 8, fin | ack, rst, rst | ack, syn | ack, fin, syn | rst, 0, syn | fin, ack | urg}[s.next(14)]
	sg.seq = s.around(f.rnxt, f.rack, f.rnxt, f.edge, f.rack-1)
	sg.ack = s.around(f.nxt, f.una, f.nxt, f.una-70000)
	hasTS := s.next(3) > 0
	tsVal := s.around(f.recent, f.recent+5)
	if hasTS {
		sg.opts = tsOpt(tsVal, 0)
	}
	if sg.flags&syn != 0 && hasTS {
		o := SYNOptions{MSS: 1000, WindowScale: -1, TS: true, TSVal: tsVal}
		sg.opts = o.append(nil)
	}
	if sg.flags&syn != 0 {
		sg.data = 0
	}
	res, g := r.in(p, sg)
	v, want := m.input(p, sg, tsVal, hasTS, func() uint32 {
		if len(r.sent) == 0 {
			r.Fatal("no SYN-ACK")
		}
		return r.sent[0].seq
	})
	if res.Verdict != v {
		r.Fatalf("%+v: verdict %v (%v), want %v", sg, res.Verdict, res.Cause, v)
	}
	switch {
	case want == nil:
		r.silent()
	default:
		a := r.reply()
		if a.flags != want.flags || a.seq != want.seq || a.ack != want.ack || a.pair != p.back() {
			r.Fatalf("%+v: answered %#x seq %d ack %d, want %+v", sg, a.flags, a.seq, a.ack, *want)
		}
	}
	if v == Pass && sg.flags&ack != 0 && g.ack != sg.ack-offset[p] {
		r.Fatalf("ack %d passed as %d", sg.ack, g.ack)
	}
	if v == Create {
		modelCreate(r, m, s, p, sg, res, offset)
		handles[p] = res.Handle
	}
}

// modelCreate plays the stack's part of the creation.
func modelCreate(r *rig, m *model, s *script, p pair, sg seg, res Result, offset map[pair]uint32) {
	r.Helper()
	f := m.flows[p]
	isn := uint32(s.next(256)) << 24
	o := SYNOptions{MSS: 1000, WindowScale: -1, TS: true, TSVal: 5}
	r.out(p, seg{flags: syn, seq: isn, opts: o.append(nil)})
	b, ok := r.t.Establish(res.Handle, r.now, nil)
	if !ok {
		r.Fatal("Establish")
	}
	decode(r, b)
	offset[p] = f.nxt - (isn + 1)
	r.out(p, seg{flags: ack, seq: isn + 1, ack: f.rack, wnd: modelWindow})
	if res.Held {
		b := raw(p, sg)
		d := describe(r, b, false, 0)
		got := r.t.Resume(&d, r.now)
		hasTS := len(sg.opts) > 0
		var tsVal uint32
		if hasTS {
			tsVal = binary.BigEndian.Uint32(sg.opts[4:])
		}
		v, _ := m.connection(p, f, sg, tsVal, hasTS, false)
		if got.Verdict != v {
			r.Fatalf("resumed: %+v, want %v", got, v)
		}
	}
	if ok, gone := r.t.Ready(res.Handle, r.now); !ok || gone {
		r.Fatal("Ready")
	}
}

// modelOutput lets the stack say something sensible.
func modelOutput(r *rig, m *model, s *script, p pair, offset uint32) {
	r.Helper()
	f := m.flows[p]
	if f == nil || !f.state.connected() {
		res, _ := r.out(p, seg{flags: ack, seq: 1, ack: 1})
		if res.Verdict == Pass {
			r.Fatalf("%+v let out", res)
		}
		return
	}
	sg := seg{flags: ack, seq: f.nxt, ack: f.rack, wnd: modelWindow}
	switch s.next(4) {
	case 0:
		sg.ack = f.rnxt
	case 1:
		sg.data = s.next(200)
	case 2:
		sg.flags |= fin
		sg.ack = f.rnxt
	}
	if f.ourFIN != nil {
		sg.data, sg.flags = 0, ack
	}
	wire := sg
	sg.seq -= offset
	res, g := r.out(p, sg)
	if res.Verdict != Pass || g.seq != wire.seq || g.ack != wire.ack {
		r.Fatalf("%+v became %+v, %+v", wire, res, g)
	}
	f.nxt += uint32(wire.data)
	if wire.flags&fin != 0 {
		f.nxt++
		end := f.nxt
		f.ourFIN = &end
		f.first = f.theirFIN == nil || far(*f.theirFIN, wire.ack)
	}
	if far(wire.ack, f.rack) {
		f.rack = wire.ack
	}
	if far(wire.ack+modelWindow, f.edge) {
		f.edge = wire.ack + modelWindow
	}
	m.move(f)
	if over := f.state.over(); res.Gone != over {
		r.Fatalf("gone %v in %v", res.Gone, f.state)
	}
}

func compareModel(r *rig, m *model, step int) {
	r.Helper()
	var want [NumStates]int
	for _, f := range m.flows {
		want[f.state]++
	}
	if s := r.t.Stats(); s.States != want || s.Records != len(m.flows) || s.HalfOpen != want[SynReceived] {
		r.Fatalf("step %d: states %v, want %v", step, s.States, want)
	}
}

func TestModel(t *testing.T) {
	n := 400
	if testing.Short() {
		n = 60
	}
	for seed := range uint64(n) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 2000)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		runModel(t, data)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// FuzzModel compares the table with the model over scripts of the fuzzer's.
func FuzzModel(f *testing.F) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		data := make([]byte, 300)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 5000 {
			runModel(t, data)
		}
	})
}
