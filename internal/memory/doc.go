// Package memory keeps the program's memory in bounds: it paces Go's garbage
// collector by how much is alive, and says when a limit is near.
//
// # Theory of operation
//
// Go's collector lets the heap grow to a percentage above what is alive (GOGC, 100 by
// default). That is wrong at both ends here. With little alive, collections follow each
// other closely under a load of short connections: at 2 MiB alive and 100 MiB
// allocated a second there are fifty a second. With a million connections alive the
// heap would be twice what they need. So after each collection the percentage is set
// anew: what is alive may grow by two fifths, and by 16 MiB at least.
//
// The limit is that of the config, or of the control group, of which 5 % are left to
// what Go does not count. It becomes Go's own soft limit (GOMEMLIMIT), which makes the
// collector work harder near it, unless the environment sets one. Past nine tenths of
// it the owner is told so, until less than 85 % are used again, and refuses new
// connections. If that has not helped in a second, garbage is collected, and the owner
// asked to end some idle connections, once a second until it is over (shed.go).
//
// When connections have come or gone in mass and the rest stands still, the heap is
// collected and what is free goes back to the system at once.
//
// # Goroutines
//
// Run is one.
package memory
