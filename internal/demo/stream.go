package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// seeded returns an endless stream that both ends can make: the same for the same
// seed and id, and unlike any other.
func seeded(seed, id uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], seed)
	binary.LittleEndian.PutUint64(key[8:], id)
	return rand.NewChaCha8(key)
}

// sumOf returns the SHA-256 of r in hex, and its length.
func sumOf(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// A record is a number of 8 bytes and the block, which is the same in all. The size
// is what a receiver compares without leaving its cache, and what gVisor turns into
// long superframes.
const (
	recordHead = 8
	recordSize = 1 << 20
	bulkID     = 1 << 63 // the block's id among the seeded streams
)

// newRecord returns record 0.
func newRecord(seed uint64) ([]byte, error) {
	rec := make([]byte, recordSize)
	_, err := io.ReadFull(seeded(seed, bulkID), rec[recordHead:])
	return rec, err
}

func number(rec []byte, n uint64) { binary.BigEndian.PutUint64(rec, n) }

// sendRecords writes whole records until enough says so, and returns the bytes
// written.
func sendRecords(w io.Writer, seed uint64, enough func() bool) (int64, error) {
	rec, err := newRecord(seed)
	if err != nil {
		return 0, err
	}
	var sent int64
	for n := uint64(0); n == 0 || !enough(); n++ {
		number(rec, n)
		m, err := w.Write(rec)
		sent += int64(m)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// verifier compares a stream of records as it arrives.
type verifier struct {
	want  []byte // the record that is arriving
	n     uint64 // its number
	off   int    // bytes of it that have arrived
	total int64

	first, last time.Time // of the bytes
}

func newVerifier(seed uint64) (*verifier, error) {
	rec, err := newRecord(seed)
	return &verifier{want: rec}, err
}

// corruptError is a difference between what was sent and what arrived.
type corruptError struct {
	At  int64
	Got byte
}

func (e *corruptError) Error() string {
	return fmt.Sprintf("byte %d of a bulk transfer arrived changed (0x%02x)", e.At, e.Got)
}

// check takes the stream's next bytes.
func (v *verifier) check(b []byte) error {
	for len(b) > 0 {
		k := min(len(b), len(v.want)-v.off)
		if want := v.want[v.off : v.off+k]; !bytes.Equal(b[:k], want) {
			i := 0
			for b[i] == want[i] {
				i++
			}
			return &corruptError{At: v.total + int64(i), Got: b[i]}
		}
		b, v.off, v.total = b[k:], v.off+k, v.total+int64(k)
		if v.off == len(v.want) {
			v.n, v.off = v.n+1, 0
			number(v.want, v.n)
		}
	}
	return nil
}

// readAll checks r to its end, which must be the end of a record.
func (v *verifier) readAll(r io.Reader) error {
	buf := make([]byte, 512<<10) // what the largest receive buffers hold
	for {
		n, err := r.Read(buf)
		if n > 0 {
			v.last = time.Now()
			if v.first.IsZero() {
				v.first = v.last
			}
			if err := v.check(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && (v.off != 0 || v.total == 0):
			return fmt.Errorf("a bulk transfer ended after %d bytes, inside a record", v.total)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// took is the time from the first byte to the last.
func (v *verifier) took() time.Duration { return v.last.Sub(v.first) }
