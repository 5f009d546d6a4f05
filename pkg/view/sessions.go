package view

import (
	"net/netip"
	"strings"
	"time"

	"vpnd/pkg/api/sessions"
)

// Sessions is how open sessions are shown.
func Sessions() Table[sessions.Session] {
	type s = sessions.Session
	return Table[s]{
		Noun: "session",
		Name: func(v s) string { return string(v.ID) },
		Columns: []Column[s]{
			{Title: "DEVICE", Shrink: true, Cell: sessionDevice},
			{Title: "STATE", Cell: func(v s, _ time.Time) Cell { return SessionState(v.State) }},
			{Title: "SINCE", Cell: func(v s, now time.Time) Cell { return Since(v.Since, now) }},
			{Title: "LANE", Cell: func(v s, _ time.Time) Cell { return Or(v.Lane) }},
			{Title: "VPN ADDRESS", Cell: func(v s, _ time.Time) Cell { return Address(v.VPNIPv4) }},
			{Title: "RX", Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.RxBytes) }},
			{Title: "TX", Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.TxBytes) }},
			{Title: "REASON", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Text(string(v.Reason)) }},
			{Title: "HANDSHAKE", Detail: Wide, Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.LastHandshake, now) }},
			{Title: "HEARTBEAT", Detail: Page, Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.LastHeartbeat, now) }},
			{Title: "ENDPOINT", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Or(v.Endpoint) }},
			{Title: "REMOTE", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Or(v.Remote) }},
			{Title: "VPN IPV6", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Address(v.VPNIPv6) }},
			{Title: "TOR ADDRESS", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Address(v.TorIPv4) }},
			{Title: "TOR IPV6", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Address(v.TorIPv6) }},
			{Title: "VPN RX", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.VPNRxBytes) }},
			{Title: "VPN TX", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.VPNTxBytes) }},
			{Title: "TOR RX", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.TorRxBytes) }},
			{Title: "TOR TX", Detail: Page, Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.TorTxBytes) }},
			{Title: "OPENED", Detail: Page, Cell: func(v s, now time.Time) Cell { return Since(v.OpenedAt, now) }},
			{Title: "CLOSED", Detail: Page, Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.ClosedAt, now) }},
			{Title: "EXPIRES", Detail: Page, Cell: func(v s, now time.Time) Cell {
				if v.State == sessions.Closed {
					return Dim("-")
				}
				return Due(v.ExpiresAt, now)
			}},
			{Title: "PUBLIC KEY", Detail: Page, Cell: func(v s, _ time.Time) Cell { return Text(v.PublicKey) }},
			{Title: "ID", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Dim(string(v.ID)) }},
		},
	}
}

// History is how closed sessions are shown.
func History() Table[sessions.Session] {
	type s = sessions.Session
	return Table[s]{
		Noun: "session",
		Name: func(v s) string { return string(v.ID) },
		Columns: []Column[s]{
			{Title: "DEVICE", Shrink: true, Cell: sessionDevice},
			{Title: "CLOSED", Cell: func(v s, now time.Time) Cell { return SinceMaybe(v.ClosedAt, now) }},
			{Title: "REASON", Cell: func(v s, _ time.Time) Cell { return Text(string(v.Reason)) }},
			{Title: "LASTED", Right: true, Cell: func(v s, _ time.Time) Cell {
				if v.ClosedAt == nil {
					return Dim("-")
				}
				d := v.ClosedAt.Sub(v.OpenedAt)
				return Cell{Text: Duration(d), Raw: Number(int64(d / time.Second)).Text}
			}},
			{Title: "RX", Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.RxBytes) }},
			{Title: "TX", Right: true, Cell: func(v s, _ time.Time) Cell { return Size(v.TxBytes) }},
			{Title: "OPENED", Detail: Wide, Cell: func(v s, now time.Time) Cell { return Since(v.OpenedAt, now) }},
			{Title: "VPN ADDRESS", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Address(v.VPNIPv4) }},
			{Title: "REMOTE", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Or(v.Remote) }},
			{Title: "ID", Detail: Wide, Cell: func(v s, _ time.Time) Cell { return Dim(string(v.ID)) }},
		},
	}
}

func sessionDevice(v sessions.Session, _ time.Time) Cell {
	return Cell{Text: DeviceName(v.Username, v.DeviceName), Tone: Strong}
}

// Address is one address, or a dash.
func Address(a netip.Addr) Cell {
	if !a.IsValid() {
		return Dim("-")
	}
	return Text(a.String())
}

func addresses(as ...netip.Addr) Cell {
	var out []string
	for _, a := range as {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return Or(strings.Join(out, " "))
}
