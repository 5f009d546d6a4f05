package streams

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
)

// namesMax bounds the onion names that are remembered for a device.
const namesMax = 4096

// onions knows which onion name an address stands for, and who asked for it.
// tor gives a name one address for all, so without this a device could try
// addresses and learn which onion services others use.
type onions struct {
	names map[netip.Addr]string
	stale bool                           // a name was asked for since names were read
	asked map[netip.Addr]map[string]bool // by device: names as onionKey
}

// onionKey stands for a name where it is kept, which need not tell it.
func onionKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// nameOf is a name in the one form in which names are compared.
func nameOf(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// note remembers that a device asked for a name.
func (o *onions) note(device netip.Addr, key string) (isNew bool) {
	o.stale = true
	names := o.asked[device]
	if names == nil || len(names) >= namesMax {
		names = map[string]bool{}
		o.asked[device] = names
	}
	isNew = !names[key]
	names[key] = true
	return isNew
}

// heardName takes in a look-up of an onion name.
func (a *Attacher) heardName(s *stream) {
	host, port := splitTarget(s.target)
	host = nameOf(host)
	if port != "0" || !strings.HasSuffix(host, ".onion") || !s.device.IsValid() {
		return
	}
	if key := onionKey(host); a.onions.note(s.device, key) {
		a.journal.name(s.device, key)
	}
}

// mayUse says whether a stream to an address that stands for an onion name may
// go on: its device must have asked for the name. An address that stands for
// nothing is refused alike, so that nothing tells the two apart.
func (a *Attacher) mayUse(ctx context.Context, s *stream, virtual netip.Addr) bool {
	if _, known := a.onions.names[virtual]; !known && a.onions.stale {
		all, err := a.ctl.AddressMappings(ctx)
		if err != nil {
			return false
		}
		a.onions.names, a.onions.stale = map[netip.Addr]string{}, false
		for _, m := range all {
			if v, err := netip.ParseAddr(m.From); err == nil {
				a.onions.names[v.Unmap()] = onionKey(nameOf(m.To))
			}
		}
	}
	key, known := a.onions.names[virtual]
	return known && a.onions.asked[s.device][key]
}
