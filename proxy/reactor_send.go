package proxy

const (
	// gatherSize is how much is gathered for one send(2).
	gatherSize = 64 << 10
	// gatherMin is the slice length from which copying costs more than the
	// system call it saves.
	gatherMin = 8 << 10
)

// gatherWriter is a sockWriter that gathers short slices, such as the payloads of
// single segments, into one send.
type gatherWriter struct {
	sockWriter
	buf []byte // gathered and not yet sent; its capacity is gatherSize
}

// begin makes w write to fd, first what is left of an earlier time.
func (w *gatherWriter) begin(fd uintptr, left []byte) {
	if w.buf == nil {
		w.buf = make([]byte, 0, gatherSize)
	}
	w.sockWriter = sockWriter{fd: fd}
	w.buf = append(w.buf[:0], left...)
}

// Write implements io.Writer for flow.Conn.ReadTo.
func (w *gatherWriter) Write(p []byte) (int, error) {
	if len(p) >= gatherMin {
		if !w.flush() {
			return 0, errStop
		}
		return w.sockWriter.Write(p)
	}
	if len(p) > cap(w.buf)-len(w.buf) && !w.flush() {
		return 0, errStop
	}
	w.buf = append(w.buf, p...)
	return len(p), nil
}

// flush sends what is gathered; false if the socket does not take all of it, with
// the rest still in buf.
func (w *gatherWriter) flush() bool {
	if len(w.buf) == 0 {
		return true
	}
	// An earlier send has said why not, and the kernel says it once: the next
	// would turn a reset into EPIPE.
	if w.full || w.err != 0 {
		return false
	}
	n, err := w.sockWriter.Write(w.buf)
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	return err == nil
}
