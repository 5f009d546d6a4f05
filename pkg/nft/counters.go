//go:build linux

package nft

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Reason says why a packet was refused or dropped. It is also the name of the
// counter in the kernel.
type Reason string

// The reasons. The list only ever grows: status output and metrics use the words.
const (
	TorRefused         Reason = "tor_blocked"         // from or to lane tor
	VPNRefused         Reason = "vpn_down"            // from or to lane vpn while it is down
	PeerToPeer         Reason = "peer_to_peer"        // device to device, within lane vpn or into lane tor
	Spoofed            Reason = "spoofed"             // a source address that the lane does not have
	BlockedDestination Reason = "blocked_destination" // Config.BlockedDestinations
	BlockedPort        Reason = "blocked_port"        // Config.BlockedPorts: SMTP
	HostService        Reason = "host_service"        // device to the host, other than the control port
	OutsideGateway     Reason = "outside_gateway"     // stranger to a lane's gateway address
	HostToDevice       Reason = "host_to_device"      // host opening a connection to a device
	Untranslated       Reason = "untranslated"        // lane address about to leave the host
	Unmatched          Reason = "unmatched"           // anything else forwarded from or to a lane
)

// Reasons lists all of them, in the order in which people want to read them.
func Reasons() []Reason {
	return []Reason{
		TorRefused, VPNRefused, PeerToPeer, BlockedPort, BlockedDestination, Spoofed,
		HostService, OutsideGateway, HostToDevice, Untranslated, Unmatched,
	}
}

// Counter is what was refused for one reason since the table was made. It
// survives Apply and ends with Remove.
type Counter struct {
	Packets, Bytes uint64
}

// Counters reads all counters. Reasons that never occurred are present with
// zero; without a table the result is empty.
func (f *Firewall) Counters(ctx context.Context) (_ map[Reason]Counter, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.hangUpAfter(&err)
	all, err := f.counters(ctx, f.cfg.Table)
	if err != nil {
		return nil, err
	}
	counters := make(map[Reason]Counter, len(all))
	for name, c := range all {
		counters[Reason(name)] = c
	}
	return counters, nil
}

func (f *Firewall) counters(ctx context.Context, name string) (map[string]Counter, error) {
	conn, err := f.conn(ctx)
	if err != nil {
		return nil, err
	}
	objs, err := conn.GetNamedObjects(table(name))
	if err != nil {
		return nil, explain(fmt.Errorf("read counters of table inet %s: %w", name, err))
	}
	counters := make(map[string]Counter, len(objs))
	for _, o := range objs {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		if c, ok := named.Obj.(*expr.Counter); ok {
			counters[named.Name] = Counter{Packets: c.Packets, Bytes: c.Bytes}
		}
	}
	return counters, nil
}
