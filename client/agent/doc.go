// Package agent keeps a device's tunnel: it opens the session, connects, sends
// heartbeats, renews tokens, watches handshakes, and finds the way back when the
// network or the server was away. DESIGN.md in the folder above has the states.
//
// Two rules stand above the rest. A token or a heartbeat that fails never touches
// the tunnel. And once the tunnel was up, what it does not carry goes nowhere
// until the user says down, whatever the server says or does.
//
// It owns the decisions. How the machine is changed is package tunnel's, how the
// server is called package gate's. One goroutine, Run, does everything in turn;
// the other methods of *Agent may be called concurrently.
package agent
