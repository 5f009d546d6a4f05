package torpath

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"vpnd/pkg/fault"
)

const (
	lastPort = 65535
	// maxPolicy is the longest policy, in bytes; tor cuts its own at 1000.
	maxPolicy = 64 << 10
)

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// PortPolicy is the ports that an exit connects to for most addresses. The zero
// value allows none.
type PortPolicy struct {
	Open []PortRange // ascending, neither touching nor overlapping
}

// ParsePortPolicy reads what follows p or p6 in a microdescriptor (dir-spec,
// section 3.3): "accept 80,443,1000-2000" or "reject 25". It gives Invalid for
// anything else.
func ParsePortPolicy(s string) (PortPolicy, error) {
	bad := func() (PortPolicy, error) {
		return PortPolicy{}, fault.New(fault.Invalid, "%.60q is no port policy: want accept or reject and ports", s)
	}
	verb, list, _ := strings.Cut(s, " ")
	if len(s) > maxPolicy || verb != "accept" && verb != "reject" {
		return bad()
	}
	var named []PortRange
	for item := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(item, "-")
		if !isRange {
			to = from
		}
		first, ok1 := parsePort(from)
		last, ok2 := parsePort(to)
		if !ok1 || !ok2 || first > last {
			return bad()
		}
		named = append(named, PortRange{first, last})
	}
	named = merge(named)
	if verb == "reject" {
		named = others(named)
	}
	return PortPolicy{named}, nil
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// merge sorts ranges and joins those that touch.
func merge(in []PortRange) (out []PortRange) {
	slices.SortFunc(in, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	for _, r := range in {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// others lists the ports that merged ranges leave out.
func others(in []PortRange) (out []PortRange) {
	next := 1
	for _, r := range in {
		if int(r.First) > next {
			out = append(out, PortRange{uint16(next), r.First - 1})
		}
		next = int(r.Last) + 1
	}
	if next <= lastPort {
		out = append(out, PortRange{uint16(next), lastPort})
	}
	return out
}

// Allows tells whether port is open; port 0 never is.
func (p PortPolicy) Allows(port uint16) bool {
	_, found := slices.BinarySearchFunc(p.Open, port, func(r PortRange, port uint16) int {
		switch {
		case port < r.First:
			return 1
		case port > r.Last:
			return -1
		}
		return 0
	})
	return found
}

// Any tells whether any port is open.
func (p PortPolicy) Any() bool { return len(p.Open) > 0 }

// String writes the policy as a microdescriptor would.
func (p PortPolicy) String() string {
	if !p.Any() {
		return "reject 1-65535"
	}
	items := make([]string, len(p.Open))
	for i, r := range p.Open {
		if items[i] = strconv.Itoa(int(r.First)); r.First != r.Last {
			items[i] += "-" + strconv.Itoa(int(r.Last))
		}
	}
	return "accept " + strings.Join(items, ",")
}
