// Package tor is the service that owns the tor process of lane tor: what the
// operator wishes, whether tor can carry anything, and what the lane does then.
//
// It owns state.json (wishes, durable before they are acknowledged), torrc, the
// process, which outlives the service and is adopted again, the maintenance
// page and DNS over TCP. It leaves packets to lanes, which it asks for a state
// once a second on a lease. One goroutine owns the process (keeper.go), one the
// probe circuit (probe.go), asks are one at a time (ask.go); decide is the only
// place where wish and observation meet. A Service may be used concurrently.
package tor
