// Package canary is the service that tries to leak: a WireGuard device of
// vpnd's own that sends, over the loopback interface, what must not get out of
// a lane, and asks lanes what the kernel counted.
//
// It owns the device, the packets, what their answers mean, and the verdict. It
// leaves the counters and the peer to lanes, and blocking lane tor to the tor
// service. A verdict of "ok" takes proof that the packets arrived: an echo of
// the lane's gateway in each address family, sent last. A Service may be used
// concurrently; one test runs at a time.
package canary
