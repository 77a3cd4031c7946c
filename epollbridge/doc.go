// Package epollbridge is epoll(7) over objects that have no descriptor: endpoints
// of a gVisor stack, or anything else that is a [waiter.Waitable]. A [Poller] is
// the epoll, a [Registration] a descriptor's place in it; [Poller.Fd] puts the
// whole into a real epoll, so that one loop serves both worlds.
//
// # Theory of operation
//
// An idle registration costs the struct that its owner embeds, and nothing else: no
// goroutine, no buffer, no timer, and nothing per registration in the Poller.
//
// The interest. The kernel finds what is registered in a tree, by descriptor. Here
// the caller holds the Registration and it is its own key, so there is no map: Add
// writes interest, modes and data into it and puts the [waiter.Entry] inside it
// into the object's queue, for every kind of event, since a queued entry's mask
// cannot be changed. What a registration waits for is sorted out in the callback.
//
// The ready list holds registrations that may have something to report, in the
// order in which they came to be there, each once:
//
//  1. The object notifies. The callback checks that the interest is concerned,
//     links the registration at the list's end and picks one sleeping Wait.
//  2. Wait takes the first one out ("in hand"), and asks its object what it is
//     ready for. Only that answer is reported, never what was notified: gVisor
//     notifies of less than it is ready for (RDHUP), and of more (a second segment
//     that the first read took).
//  3. Nothing: it is forgotten. OneShot: reported and disarmed. Edge: reported.
//     Level-triggered: reported, and linked again at the end, where the next Wait
//     asks once more.
//
// Add and Modify ask the object as well, after they have registered or written the
// interest, and link what is ready already.
//
// # Locks
//
// Poller.mu guards the ready list and the registrations. The callback runs under
// the locks of the object that notifies, a TCP endpoint's own mutex among them, and
// takes mu; therefore mu is a leaf. While it is held no object is asked, no sleeper
// woken and no system call made. The order, outermost first:
//
//	Shared.ctl -> the object's locks -> Shared.mu -> Poller.mu
//	                                    eventFd.mu -> Poller.mu (in Fd alone)
//
// Readiness, which takes an endpoint's queue locks, is called with no lock held.
// It cannot deadlock with a callback under these locks, since the callback waits
// for mu alone and who holds mu waits for nobody.
//
// # Why Delete is final
//
// Delete marks the registration first, so that nothing links it any more; takes it
// out of the ready list; waits until no Wait has it in hand; and takes the entry
// out of the object's queue, which waits for callbacks that run. (Callbacks of an
// object that does not wait find a registration that is added no more.) What a Wait
// had taken before is the only thing that may still be seen, as with epoll: events
// in the hands of another goroutine, or further on in the slice that the caller is
// going through. Data that names a generation tells them apart.
//
// # Why no wake-up is lost
//
// Suppose something changes at the object. It says so after the change. Then
//   - the registration is not in the list: it is linked, and a sleeper woken;
//   - it is in the list: whoever was woken for it has not asked the object yet;
//   - it is in hand: it is marked, and linked again when it is let go, because the
//     answer may be older than the change.
//
// A Wait goes to sleep under mu, with the list empty, so none sleeps past what is
// linked (what [Exclusive] puts back apart). One that was woken goes through the
// list before it does anything else, also if its time is over or Wake was called;
// and if it leaves something behind, for lack of room or because it is
// level-triggered, it wakes the next sleeper. What happened before Add was notified
// to nobody, which is why Add asks.
//
// # Why there is no storm
//
// A sleeper is taken off the list of sleepers by whoever picks it, so that it is
// woken once for each sleep. A registration that is linked already wakes nobody.
// A walk through the list asks no object twice, because it stops at what was linked
// after it began. A level-triggered event that several Waits sleep for wakes all, one after
// the other, for as long as it is true: so does epoll. Edge, OneShot and
// [Exclusive] are for those who do not want that. The descriptor is written when
// the list gets its first registration and read when it lost its last.
//
// # Differences from epoll(7)
//
// Deliberate ones of the Poller, each with its reason:
//
//   - The key is the Registration, not the object: two for one object are like two
//     descriptors of one file. A map would cost memory and a lookup.
//   - Closing an object does not end its registration, as nobody tells the Poller.
//     Delete first; else the final state is reported until then.
//   - Close leaves what is still added in its objects' queues, where it does
//     nothing, until Delete, which works on: a list of all registrations would cost
//     16 bytes each, and Delete of a cold one two cache misses more.
//   - Bits that are not listed here are refused with EINVAL; the kernel ignores
//     them. Nobody would notice that an event never comes.
//   - Exclusive concerns the Waits of one Poller, too: an event that is put back
//     because it is level-triggered wakes no second one. It is for accepting, where
//     the second would find nothing. Between Pollers it needs a [Shared], and a
//     readable Fd counts as a waiter there: loops sleep in a real epoll.
//   - The descriptor may be readable and Wait return nothing, since a notification
//     is not asked about before somebody waits. The kernel asks in poll(2).
//   - A Wait with timeout 0 may miss a level-triggered event that another Wait has
//     in hand at that moment. The kernel makes it wait for the other.
//   - An Edge registration for RdHup without In is told of data, too, and reports
//     what else it is ready for: the peer's FIN is notified as data.
//   - Nested Pollers go through Fd; a Poller is not a Waitable, so there are no
//     loops to be looked for (ELOOP).
//
// Differences of gVisor's endpoints from the kernel's sockets, which a Poller hands
// on because only the object knows better:
//
//   - A TCP connection in its final state reports Err for ever, also after both
//     FINs; the kernel only until the error was read. A read tells.
//   - A FIN is notified to readers (received) or writers (sent), in the kernel to
//     everybody: an Edge registration for the other direction alone is not told.
//   - After the peer's FIN and one's own neither RdHup nor Hup is reported until
//     the last ACK has come; then both are.
//   - Out is notified once, when a full send buffer has become half empty, though
//     it counts as writable from the first free byte. In the kernel both come with
//     the same third.
//   - A waiter.Queue notifies in the order of registration, a kernel's wait queue
//     in the reverse, so the order of events of one object differs.
//
// That there are no others is what TestLikeEpollOverEventfds and
// TestLikeEpollOverTCP show: random scripts that run here and in the kernel.
package epollbridge
