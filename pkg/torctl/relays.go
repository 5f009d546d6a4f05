package torctl

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"vpnd/pkg/torpath"
)

// Relay is one relay of the consensus.
type Relay struct {
	Fingerprint, Nickname string
	Addr, Addr6           netip.Addr // where it takes connections, not where it exits
	Flags                 []string
	Bandwidth             int64 // consensus weight, in kB/s
	// Described tells that tor has the relay's microdescriptor, without which
	// it cannot extend a circuit to it and the fields below are empty.
	Described     bool
	Ports, Ports6 torpath.PortPolicy
	Family        []string // fingerprints ($...), nicknames, family ids (ed25519:...)
}

// Relays lists the relays of tor's consensus with what their microdescriptors
// say; none before it has one. For the public network the replies are above 10
// MB, and other commands of this client wait for them.
func (c *Client) Relays(ctx context.Context) ([]Relay, error) {
	ns, err := c.lines(ctx, "ns/all")
	if err != nil || ns == nil {
		return nil, err
	}
	relays, digests, ok := parseRelays(ns)
	if !ok {
		return nil, garbled("list of relays")
	}
	var md microdescs
	if err := c.stream(ctx, "md/all", md.line); err != nil {
		return nil, err
	}
	known, ok := md.end()
	if !ok {
		return nil, garbled("list of microdescriptors")
	}
	for i := range relays {
		r := &relays[i]
		d, found := known[digests[i]]
		if !found {
			continue
		}
		r.Described, r.Ports, r.Ports6, r.Family = true, d.ports, d.ports6, d.family
		if !r.Addr6.IsValid() {
			r.Addr6 = d.addr6
		}
	}
	return relays, nil
}

// parseRelays reads router status entries (dir-spec, section 3.4.1) and skips
// the kinds of line that it does not know. digests are those of the relays'
// descriptors, in the same order.
func parseRelays(lines []string) (all []Relay, digests []digest, ok bool) {
	var r *Relay
	for _, line := range lines {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "r" {
			f := strings.Fields(rest)
			if len(f) < 8 {
				return nil, nil, false
			}
			// nickname identity digest date time IP ORPort DirPort
			id, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(f[1], "="))
			addr, err2 := netip.ParseAddr(f[5])
			if err != nil || err2 != nil || len(id) != 20 {
				return nil, nil, false
			}
			all = append(all, Relay{Fingerprint: strings.ToUpper(hex.EncodeToString(id)), Nickname: f[0], Addr: addr})
			digests = append(digests, readDigest(f[2]))
			r = &all[len(all)-1]
			continue
		}
		if r == nil {
			return nil, nil, false
		}
		switch kind {
		case "a":
			r.Addr6 = firstAddr6(r.Addr6, rest)
		case "s":
			r.Flags = strings.Fields(rest)
		case "w":
			for w := range strings.FieldsSeq(rest) {
				if n, found := strings.CutPrefix(w, "Bandwidth="); found {
					bw, err := strconv.ParseInt(n, 10, 64)
					if err != nil {
						return nil, nil, false
					}
					r.Bandwidth = bw
				}
			}
		}
	}
	return all, digests, true
}

// firstAddr6 takes the address of an a line unless there is one or it is IPv4.
func firstAddr6(have netip.Addr, line string) netip.Addr {
	ap, err := netip.ParseAddrPort(line)
	if have.IsValid() || err != nil || ap.Addr().Zone() != "" || ap.Addr().Unmap().Is4() {
		return have
	}
	return ap.Addr()
}
