package torctl

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// Relay is one relay of the consensus.
type Relay struct {
	Fingerprint, Nickname string
	Addr                  netip.Addr // where it takes connections, not where it exits
	Flags                 []string
	Bandwidth             int64  // consensus weight, in kB/s
	ExitPorts             string // "accept 80,443"; empty when tor keeps microdescriptors only
}

// Relays lists the relays of tor's consensus; none before it has one.
func (c *Client) Relays(ctx context.Context) ([]Relay, error) {
	v, err := c.getInfo(ctx, "ns/all")
	if err != nil || v[0] == "" {
		return nil, err
	}
	relays, ok := parseRelays(v[0])
	if !ok {
		return nil, garbled("list of relays")
	}
	return relays, nil
}

// parseRelays reads router status entries (dir-spec, section 3.4.1) and skips
// the kinds of line that it does not know.
func parseRelays(text string) (all []Relay, ok bool) {
	var r *Relay
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "r" {
			f := strings.Fields(rest)
			if len(f) < 8 {
				return nil, false
			}
			// nickname identity digest date time IP ORPort DirPort
			id, err1 := base64.RawStdEncoding.DecodeString(strings.TrimRight(f[1], "="))
			addr, err2 := netip.ParseAddr(f[5])
			if err1 != nil || err2 != nil || len(id) != 20 {
				return nil, false
			}
			all = append(all, Relay{Fingerprint: strings.ToUpper(hex.EncodeToString(id)), Nickname: f[0], Addr: addr})
			r = &all[len(all)-1]
			continue
		}
		if r == nil {
			return nil, false
		}
		switch kind {
		case "s":
			r.Flags = strings.Fields(rest)
		case "p":
			r.ExitPorts = rest
		case "w":
			for w := range strings.FieldsSeq(rest) {
				if n, found := strings.CutPrefix(w, "Bandwidth="); found {
					bw, err := strconv.ParseInt(n, 10, 64)
					if err != nil {
						return nil, false
					}
					r.Bandwidth = bw
				}
			}
		}
	}
	return all, true
}
