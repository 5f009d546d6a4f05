// Package tor is the service that owns the tor process of lane tor: what the
// operator wishes, whether tor can carry anything, and what the lane does then.
//
// On disk it owns state.json (the wish), settings.json (isolation and exit
// choices) and bridges.json (package bridges), each durable before it is
// acknowledged, and tor.pid, tor's data and logs. In the run folder, which a
// reboot empties, lie torrc, the control and SOCKS sockets and the journal of
// streams (package streams). The process outlives the service and is adopted
// again. The maintenance page and DNS over TCP are served here too. Packets are
// left to lanes, which is asked for a state once a second on a lease; whose an
// address is, to sessions; the control protocol, to torctl; paths, to torpath.
//
// One goroutine owns the process (keeper.go, reload.go). The connection to tor
// (connection.go) has three: one attaches streams, one keeps the book of relays
// (relays.go), one hears of this host's clock; they end with it. One builds the
// probe circuit (probe.go), one renews the lease (ask.go). decide is the only
// place where wish and observation meet. Neither the lease nor the status waits
// for tor: see glance. A Service may be used concurrently.
package tor
