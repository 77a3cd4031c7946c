// Package loop is an event loop: one goroutine that waits for file descriptors,
// posted tasks and timers, and serves each in turn.
//
// # Theory of operation
//
// A relay of goroutines pays for every byte that arrives with a wake-up, and for
// every connection that sleeps with two stacks. A loop serves a device queue and
// all connections behind it from one goroutine instead: a frame is read, the
// stack runs, the connection whose data it was is served and its upstream written
// to, with no hop between. What a connection owns is a [Source], a [Task] and a
// [Timer], all embedded in its own struct, so that the loop allocates nothing.
//
// A turn of the loop, in order:
//
//  1. sources: epoll_wait, once a turn: without waiting if step 2 or 3 left work,
//     else until something happens or the next timer is due; each ready Source's
//     function is called with its events;
//  2. tasks: what was posted up to now runs, once; what these tasks post runs in
//     the next turn, so that no flow starves the others;
//  3. timers that are due.
//
// # Wake-ups
//
// Post may be called from anywhere, under any lock: it links the task into a list
// and, only if the loop sleeps, writes to an eventfd. The loop announces its sleep
// first and looks at the list again after, so a task posted in between is seen by
// one of the two. Before it sleeps the loop yields its processor once, because
// goroutines that were made runnable by this turn (gVisor's) wait for that very
// processor, and what they do usually posts the next task. If waits were short lately it
// looks on for 20 us instead of sleeping (spin.go): an answer from next door comes
// sooner than a sleeper wakes.
//
// # Rules
//
// Functions run on the loop's goroutine and must not block: all of them wait
// meanwhile. Everything but Post belongs to the loop's goroutine or comes before
// Run. After Remove or Stop return no function of that Source or Timer is called.
package loop
