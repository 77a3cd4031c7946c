package lan

// node is a place in a ring: an entry's own, or a list's root. Entries hold their
// nodes, so that a change of place allocates nothing.
type node[T any] struct {
	prev, next *node[T]
	of         T // zero in a root
}

// ring makes n a ring of itself alone.
func (n *node[T]) ring() { n.prev, n.next = n, n }

// unlink takes n out of the ring it is in.
func (n *node[T]) unlink() {
	n.prev.next, n.next.prev = n.next, n.prev
	n.ring()
}

// list is a queue that knows its length: entries are pushed when they become the
// newest, and leave from the other end or from anywhere.
type list[T any] struct {
	root node[T]
	len  int
}

func (l *list[T]) init() { l.root.ring() }

// push makes n, which is in no list, the newest.
func (l *list[T]) push(n *node[T]) {
	last := l.root.prev
	n.prev, n.next = last, &l.root
	last.next, l.root.prev = n, n
	l.len++
}

// remove takes n out, which must be in l.
func (l *list[T]) remove(n *node[T]) {
	n.unlink()
	l.len--
}

// oldest returns the entry that was pushed first, if there is one.
func (l *list[T]) oldest() (entry T, ok bool) {
	return l.root.next.of, l.len > 0
}
