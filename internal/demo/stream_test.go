package demo

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// threeRecords returns a valid stream.
func threeRecords(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	sent := 0
	n, err := sendRecords(&b, 7, func() bool { sent++; return sent > 2 })
	if err != nil || n != 3*recordSize || b.Len() != 3*recordSize {
		t.Fatalf("sent %d bytes, %d arrived, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func verify(t testing.TB, r io.Reader) error {
	t.Helper()
	v, err := newVerifier(7)
	if err != nil {
		t.Fatal(err)
	}
	return v.readAll(r)
}

// TestVerifier: nothing that a broken path does to a stream passes.
func TestVerifier(t *testing.T) {
	good := threeRecords(t)
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	cut := func(from, to int) []byte { return append(bytes.Clone(good[:from]), good[to:]...) }
	for _, c := range []struct {
		name   string
		stream []byte
		says   string
	}{
		{"intact", good, ""},
		{"first byte", flip(0), "byte 0 "},
		{"last byte", flip(len(good) - 1), "byte 3145727 "},
		{"in a number", flip(recordSize + recordHead - 1), "byte 1048583 "},
		{"a byte lost", cut(5000, 5001), "arrived changed"},
		{"a segment lost", cut(1448*9, 1448*10), "arrived changed"},
		{"a record lost", cut(recordSize, 2*recordSize), "arrived changed"},
		{"a record twice", append(bytes.Clone(good[:2*recordSize]), good[recordSize:]...), "arrived changed"},
		{"the end lost", good[:len(good)-1], "ended after 3145727 bytes"},
		{"empty", nil, "ended after 0 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(c.stream), iotest.HalfReader(bytes.NewReader(c.stream)), iotest.DataErrReader(bytes.NewReader(c.stream))} {
				err := verify(t, r)
				if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %q", err, c.says)
				}
			}
		})
	}
}

func TestVerifierPassesErrors(t *testing.T) {
	if err := verify(t, iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

// FuzzVerifier: however a stream is cut into reads, one flipped bit is found, at its
// place, and none else.
func FuzzVerifier(f *testing.F) {
	f.Add(uint32(0), uint8(1), uint16(1448))
	f.Add(uint32(recordSize), uint8(0), uint16(65535))
	good := threeRecords(f)[:recordSize+4096]
	f.Fuzz(func(t *testing.T, at uint32, bits uint8, step uint16) {
		b := bytes.Clone(good)
		i := int(at) % len(b)
		b[i] ^= bits
		v, err := newVerifier(7)
		if err != nil {
			t.Fatal(err)
		}
		for rest := b; len(rest) > 0 && err == nil; {
			n := min(len(rest), int(step)+64)
			err = v.check(rest[:n])
			rest = rest[n:]
		}
		var c *corruptError
		switch {
		case bits == 0 && err != nil:
			t.Fatalf("an intact stream: %v", err)
		case bits != 0 && (!errors.As(err, &c) || c.At != int64(i) || c.Got != b[i]):
			t.Fatalf("byte %d changed: %v", i, err)
		}
	})
}

func TestSeededDiffers(t *testing.T) {
	sums := map[string]bool{}
	for _, k := range [][2]uint64{{1, 1}, {1, 2}, {2, 1}} {
		sum, n, err := sumOf(io.LimitReader(seeded(k[0], k[1]), 1000))
		again, _, _ := sumOf(io.LimitReader(seeded(k[0], k[1]), 1000))
		if err != nil || n != 1000 || sum != again {
			t.Errorf("%v: %d bytes, %s and %s, %v", k, n, sum, again, err)
		}
		sums[sum] = true
	}
	if len(sums) != 3 {
		t.Errorf("%d of 3 streams are different", len(sums))
	}
}
