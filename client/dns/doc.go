// Package dns points the machine's resolver at the tunnel's name servers and
// back. It owns the choice of how that is done on this machine and what is needed
// to undo it, also after a crash, also by another process.
//
// The choice, first match: systemd-resolved when /etc/resolv.conf leads to its
// stub and it answers on D-Bus; resolvconf when it is installed and its change
// shows in /etc/resolv.conf; else /etc/resolv.conf itself. Asking what
// /etc/resolv.conf says, not what is installed, finds the one that programs use.
//
// Whoever calls Set must have stored the Record that Prepare gave, because Undo
// needs it. A *Resolver is not for concurrent use.
package dns
