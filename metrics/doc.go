// Package metrics shows the counters of the other packages to Prometheus.
//
// # Theory of operation
//
// Nothing is counted here. Each package counts in its own way on its own data
// path and offers a snapshot, its Stats; a scrape takes one snapshot a source and
// turns its fields into samples. So a gateway that nobody scrapes pays nothing,
// a scrape takes no lock that a packet waits for, and all samples of one source
// are of one moment.
//
// What a field is called is one row of a table (stack.go, proxy.go, device.go);
// docs/metrics.md is made from the same rows. A test fills every field of every
// Stats with a number of its own and looks for it in the output, so a field
// without a row does not go unnoticed.
//
// # Names and labels
//
// Every name begins with tungate_, units are base units, and a counter ends in
// _total. The label sets are closed: queue, direction, protocol, reason, result,
// offload. No label ever holds an address, a port or a name, so the number of
// series depends on the number of queues alone, never on traffic. Series exist
// from the first scrape, at 0: a rate over a counter that appears with its first
// event would miss that event.
//
// The registry is this package's own; Prometheus's default one is not touched.
package metrics
