package fakevpnd

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// TorNet is what tor of the fake vpnd knows of the Tor network.
type TorNet struct {
	Circuits []tor.Circuit
	Streams  []tor.Stream
	Exits    []tor.Choice
	Relays   []tor.Relay
	Bridges  []tor.Bridge
	Onions   []tor.Onion
	Check    tor.Check
	Reached  tor.BridgeTest // what a test of a bridge says
}

// torNet has circuits of the people of New. Relays and devices choose their
// names themselves.
func torNet() TorNet {
	hop := func(n int, nickname, country string) tor.Hop {
		d := string(rune('0' + n))
		return tor.Hop{Fingerprint: strings.Repeat("A"+d, 20), Nickname: nickname, Address: netip.MustParseAddr("198.51.100." + d), Country: country}
	}
	guard, middle, exit := hop(1, "guardian", "fr"), hop(2, "evil\x1b[31mmiddle", "nl"), hop(3, "leaver", "de")
	laptop := tor.Owner{User: "alice", Device: "laptop", Address: netip.MustParseAddr("10.9.0.2")}
	note := tor.Owner{User: "carol", Device: "ノート", Address: netip.MustParseAddr("10.9.0.4")}
	relay := func(h tor.Hop, exit bool, kb int64, flags ...string) tor.Relay {
		return tor.Relay{Fingerprint: h.Fingerprint, Nickname: h.Nickname, Address: h.Address, Country: h.Country, Bandwidth: kb, Exit: exit, IPv6: exit, Flags: flags}
	}
	return TorNet{
		Circuits: []tor.Circuit{
			{ID: "12", State: "BUILT", Purpose: "GENERAL", Path: []tor.Hop{guard, middle, exit}, Created: ago(4 * time.Minute), Streams: 2, Devices: []tor.Owner{laptop}},
			{ID: "13", State: "BUILT", Purpose: "GENERAL", Path: []tor.Hop{guard, hop(4, "", ""), exit}, Created: ago(30 * time.Second), Streams: 1, Ours: true, Devices: []tor.Owner{note}},
			{ID: "14", State: "LAUNCHED", Purpose: "GENERAL", Path: []tor.Hop{}, Created: ago(time.Second), Devices: []tor.Owner{}},
		},
		Streams: []tor.Stream{
			{ID: "101", State: "SUCCEEDED", Target: "www.example.org:443", Circuit: "12", Owner: laptop},
			{ID: "102", State: "SENTCONNECT", Target: "\x1b]0;owned\a:80", Circuit: "12", Owner: laptop},
			{ID: "103", State: "SUCCEEDED", Target: "[2001:db8::7]:443", Circuit: "13", Owner: note},
			{ID: "104", State: "NEW", Target: "192.0.2.5:22", Owner: tor.Owner{Address: netip.MustParseAddr("10.9.0.77")}},
		},
		Exits: []tor.Choice{{Exits: []string{"de", "nl"}, Usable: 412}, {User: "carol", Exits: []string{exit.Fingerprint}, Strict: true, Usable: 1}},
		Relays: []tor.Relay{
			relay(exit, true, 42_000, "Exit", "Fast", "Running", "Stable", "Valid"),
			relay(guard, false, 31_000, "Fast", "Guard", "HSDir", "Running", "Stable", "V2Dir", "Valid"),
			relay(middle, false, 900, "Running", "Valid"),
		},
		Bridges: []tor.Bridge{
			{ID: "3f6c0a91b2d4", Line: "obfs4 192.0.2.7:443 " + strings.Repeat("B1", 20) + " cert=abc iat-mode=0", Transport: "obfs4", Fingerprint: strings.Repeat("B1", 20), Available: true},
			{ID: "9b11e0c4d7aa", Line: "192.0.2.8:9001 " + strings.Repeat("B2", 20), Fingerprint: strings.Repeat("B2", 20), Available: true},
			{ID: "9bfa7e0011cc", Line: "snowflake 192.0.2.3:80 url=https://x.example/", Transport: "snowflake", Message: "snowflake-client is not installed"},
		},
		Onions:  []tor.Onion{{Name: strings.Repeat("abcdefg", 8) + ".onion", Virtual: netip.MustParseAddr("10.192.0.9")}},
		Check:   tor.Check{OK: true, URL: "https://check.torproject.org/api/ip", Seen: exit.Address, Country: "de", TookMs: 1234},
		Reached: tor.BridgeTest{OK: true, TookMs: 1370, Message: "the bridge answers and is who it should be"},
	}
}

func (w *World) handleTorNet(s *rpc.Server) {
	n := &w.TorNet
	on(w, s, tor.ListCircuits, func(*struct{}) (*rpc.List[tor.Circuit], error) { return all(n.Circuits), nil })
	on(w, s, tor.GetCircuit, func(r *tor.CircuitRef) (*tor.Circuit, error) {
		i, err := n.circuit(r.ID)
		if err != nil {
			return nil, err
		}
		return &n.Circuits[i], nil
	})
	on(w, s, tor.CloseCircuit, func(r *tor.CircuitRef) (*rpc.None, error) {
		i, err := n.circuit(r.ID)
		if err == nil {
			n.close(func(c tor.Circuit) bool { return c.ID == n.Circuits[i].ID })
		}
		return &rpc.None{}, err
	})
	on(w, s, tor.ListStreams, func(*struct{}) (*rpc.List[tor.Stream], error) { return all(n.Streams), nil })
	on(w, s, tor.NewID, w.newID)
	on(w, s, tor.ListExits, func(*struct{}) (*rpc.List[tor.Choice], error) { return all(n.Exits), nil })
	on(w, s, tor.SetExit, w.setExit)
	on(w, s, tor.ClearExit, func(r *tor.UserRef) (*rpc.None, error) {
		n.Exits = slices.DeleteFunc(n.Exits, func(c tor.Choice) bool { return c.User == strings.TrimPrefix(r.User, "-") })
		return &rpc.None{}, nil
	})
	on(w, s, tor.ListRelays, func(r *tor.RelayRequest) (*rpc.List[tor.Relay], error) {
		return page(n.Relays, r.Limit, func(v tor.Relay) bool {
			return (v.Exit || !r.Exit) && (r.Country == "" || v.Country == r.Country)
		}), nil
	})
	on(w, s, tor.ListOnions, func(*struct{}) (*rpc.List[tor.Onion], error) { return all(n.Onions), nil })
	on(w, s, tor.RunCheck, func(*struct{}) (*tor.Check, error) { return &n.Check, nil })
	on(w, s, tor.SetIsolation, func(r *tor.IsolationRequest) (*tor.Status, error) {
		w.Tor.Isolation = r.Body.Isolation
		return w.torStatus(), nil
	})
	w.handleBridges(s)
}

func (w *World) handleBridges(s *rpc.Server) {
	n := &w.TorNet
	on(w, s, tor.ListBridges, func(*struct{}) (*rpc.List[tor.Bridge], error) { return all(n.Bridges), nil })
	on(w, s, tor.AddBridge, func(r *tor.BridgeRequest) (*tor.Bridge, error) {
		line := strings.TrimPrefix(r.Body.Line, "Bridge ")
		if !strings.Contains(line, ":") {
			return nil, fault.InvalidField("bridge", "%.60q is no address with a port", line)
		}
		if slices.ContainsFunc(n.Bridges, func(b tor.Bridge) bool { return b.Line == line }) {
			return nil, fault.New(fault.Exists, "the bridge is there already")
		}
		b := tor.Bridge{ID: strings.Repeat(string(rune('a'+len(n.Bridges)%6)), 12), Line: line, Available: true}
		n.Bridges = append(n.Bridges, b)
		return &b, nil
	})
	on(w, s, tor.RemoveBridge, func(r *tor.BridgeRef) (*rpc.None, error) {
		n.Bridges = slices.DeleteFunc(n.Bridges, func(b tor.Bridge) bool { return strings.HasPrefix(b.ID, r.ID) })
		return &rpc.None{}, nil
	})
	on(w, s, tor.TestBridge, func(*tor.BridgeRef) (*tor.BridgeTest, error) { return &n.Reached, nil })
	on(w, s, tor.UseBridges, func(r *tor.BridgeUse) (*tor.Status, error) {
		if r.Body.Enabled && len(n.Bridges) == 0 {
			return nil, fault.New(fault.Invalid, "there is no bridge to use").WithHint("vpnctl tor bridge add LINE")
		}
		w.Tor.Bridges = r.Body.Enabled
		return w.torStatus(), nil
	})
}

func all[T any](items []T) *rpc.List[T] {
	return &rpc.List[T]{Items: slices.Clone(items), Total: len(items)}
}

func (n *TorNet) circuit(id string) (int, error) {
	i := slices.IndexFunc(n.Circuits, func(c tor.Circuit) bool { return c.ID == id })
	if i < 0 {
		return 0, fault.New(fault.NotFound, "there is no circuit %q", id).WithHint("vpnctl tor circuit list")
	}
	return i, nil
}

// close drops circuits with their streams.
func (n *TorNet) close(which func(tor.Circuit) bool) (circuits, streams int) {
	gone := map[string]bool{}
	n.Circuits = slices.DeleteFunc(n.Circuits, func(c tor.Circuit) bool {
		if which(c) {
			gone[c.ID] = true
		}
		return gone[c.ID]
	})
	before := len(n.Streams)
	n.Streams = slices.DeleteFunc(n.Streams, func(s tor.Stream) bool { return gone[s.Circuit] })
	return len(gone), before - len(n.Streams)
}

func (w *World) newID(r *tor.NewIDRequest) (*tor.NewIDReply, error) {
	devices := map[tor.Owner]bool{}
	theirs := func(o tor.Owner) bool {
		return r.Body.All || r.Body.User != "" && o.User == r.Body.User || r.Body.Device != "" && o.User+"/"+o.Device == r.Body.Device
	}
	out := &tor.NewIDReply{}
	out.Circuits, out.Streams = w.TorNet.close(func(c tor.Circuit) bool {
		i := slices.IndexFunc(c.Devices, theirs)
		if i >= 0 {
			devices[c.Devices[i]] = true
		}
		return i >= 0
	})
	out.Devices = len(devices)
	return out, nil
}

func (w *World) setExit(r *tor.ExitRequest) (*tor.ExitReply, error) {
	out := &tor.ExitReply{Choice: tor.Choice{User: strings.TrimPrefix(r.User, "-"), Exits: r.Body.Exits, Strict: r.Body.Strict}}
	for _, v := range w.TorNet.Relays {
		if v.Exit && (slices.Contains(r.Body.Exits, v.Country) || slices.Contains(r.Body.Exits, v.Fingerprint)) {
			out.Choice.Usable++
		}
	}
	if out.Choice.Usable < 3 {
		out.Warning = "few exits match, which makes users easier to recognise"
	}
	n := &w.TorNet
	n.Exits = slices.DeleteFunc(n.Exits, func(c tor.Choice) bool { return c.User == out.Choice.User })
	n.Exits = append(n.Exits, out.Choice)
	slices.SortStableFunc(n.Exits, func(a, b tor.Choice) int { return strings.Compare(a.User, b.User) })
	return out, nil
}
