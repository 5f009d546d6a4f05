package view

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/lanes"
)

// Lanes is how lanes are shown.
func Lanes() Table[lanes.Lane] {
	type l = lanes.Lane
	return Table[l]{
		Noun: "lane",
		Name: func(v l) string { return string(v.Name) },
		Columns: []Column[l]{
			{Title: "LANE", Cell: func(v l, _ time.Time) Cell { return Cell{Text: string(v.Name), Tone: Strong} }},
			{Title: "STATE", Cell: func(v l, _ time.Time) Cell { return LaneState(v) }},
			{Title: "SINCE", Cell: func(v l, now time.Time) Cell { return Since(v.Since, now) }},
			{Title: "INTERFACE", Cell: func(v l, _ time.Time) Cell { return Text(v.Interface) }},
			{Title: "PORT", Right: true, Cell: func(v l, _ time.Time) Cell { return Number(v.Port) }},
			{Title: "PEERS", Right: true, Cell: func(v l, _ time.Time) Cell { return Number(v.Peers) }},
			{Title: "REASON", Shrink: true, Cell: func(v l, _ time.Time) Cell { return Or(v.Reason) }},
			{Title: "BACKEND", Detail: Wide, Cell: func(v l, _ time.Time) Cell { return Text(v.Backend) }},
			{Title: "IPV4", Detail: Wide, Cell: func(v l, _ time.Time) Cell { return Text(v.IPv4.String()) }},
			{Title: "IPV6", Detail: Wide, Cell: func(v l, _ time.Time) Cell { return Text(v.IPv6.String()) }},
			{Title: "PUBLIC KEY", Detail: Wide, Cell: func(v l, _ time.Time) Cell { return Text(v.PublicKey) }},
			{Title: "MTU", Detail: Page, Right: true, Cell: func(v l, _ time.Time) Cell { return orZero(v.MTU) }},
			{Title: "DNS", Detail: Page, Cell: func(v l, _ time.Time) Cell { return addresses(v.DNS...) }},
		},
	}
}

// Pools is how the address pools are shown.
func Pools() Table[ipam.PoolStatus] {
	type p = ipam.PoolStatus
	return Table[p]{
		Noun: "pool",
		Name: func(v p) string { return v.Lane + "/" + v.Family },
		Columns: []Column[p]{
			{Title: "POOL", Cell: func(v p, _ time.Time) Cell { return Cell{Text: v.Lane + "/" + v.Family, Tone: Strong} }},
			{Title: "PREFIX", Cell: func(v p, _ time.Time) Cell { return Text(v.Prefix.String()) }},
			{Title: "GATEWAY", Detail: Wide, Cell: func(v p, _ time.Time) Cell { return Address(v.Gateway) }},
			{Title: "USED", Right: true, Cell: func(v p, _ time.Time) Cell { return count(v.Used) }},
			{Title: "RESTING", Right: true, Cell: func(v p, _ time.Time) Cell { return count(v.Quarantined) }},
			{Title: "FREE", Right: true, Cell: func(v p, _ time.Time) Cell {
				c := count(v.Free)
				if v.Free == 0 {
					c.Tone = Bad
				}
				return c
			}},
			{Title: "FULL", Right: true, Cell: func(v p, _ time.Time) Cell { return share(v) }},
			{Title: "CAPACITY", Detail: Wide, Right: true, Cell: func(v p, _ time.Time) Cell { return count(v.Capacity) }},
		},
	}
}

// count writes numbers up to a million as they are, and those of an IPv6
// prefix by their size.
func count(n uint64) Cell {
	raw := strconv.FormatUint(n, 10)
	if n < 1_000_000 {
		return Text(raw)
	}
	return Cell{Text: strings.Replace(fmt.Sprintf("%.0e", float64(n)), "e+", "e", 1), Raw: raw}
}

func share(v ipam.PoolStatus) Cell {
	if v.Capacity == 0 {
		return Dim("-")
	}
	percent := 100 * float64(v.Capacity-min(v.Free, v.Capacity)) / float64(v.Capacity)
	tone := Normal
	switch {
	case v.Free == 0:
		tone = Bad
	case percent >= 90:
		tone = Warn
	}
	return Cell{Text: fmt.Sprintf("%.0f %%", percent), Raw: fmt.Sprintf("%.2f", percent), Tone: tone}
}

// Lease is a lease with the names of who holds it.
type Lease struct {
	ipam.Lease
	Username   string `json:"username,omitempty"`
	DeviceName string `json:"device_name,omitempty"`
}

// Leases is how leases are shown.
func Leases() Table[Lease] {
	return Table[Lease]{
		Noun: "lease",
		Name: leaseName,
		Columns: []Column[Lease]{
			{Title: "DEVICE", Shrink: true, Cell: func(v Lease, _ time.Time) Cell { return Cell{Text: leaseName(v), Tone: Strong} }},
			{Title: "VPN", Cell: func(v Lease, _ time.Time) Cell { return addresses(v.VPN.IPv4) }},
			{Title: "TOR", Cell: func(v Lease, _ time.Time) Cell { return addresses(v.Tor.IPv4) }},
			{Title: "VPN IPV6", Detail: Wide, Cell: func(v Lease, _ time.Time) Cell { return addresses(v.VPN.IPv6) }},
			{Title: "TOR IPV6", Detail: Wide, Cell: func(v Lease, _ time.Time) Cell { return addresses(v.Tor.IPv6) }},
			{Title: "SINCE", Cell: func(v Lease, now time.Time) Cell { return Since(v.CreatedAt, now) }},
			{Title: "DEVICE ID", Detail: Wide, Cell: func(v Lease, _ time.Time) Cell { return Dim(string(v.Device)) }},
			{Title: "USER ID", Detail: Wide, Cell: func(v Lease, _ time.Time) Cell { return Dim(string(v.User)) }},
		},
	}
}

func leaseName(v Lease) string {
	if v.Username == "" {
		return string(v.Device)
	}
	return DeviceName(v.Username, v.DeviceName)
}
