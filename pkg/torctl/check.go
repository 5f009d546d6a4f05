package torctl

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"vpnd/pkg/fault"
)

// maxBridge is the longest bridge line, in bytes; real ones stay below 1 KiB.
const maxBridge = 4096

// CheckFingerprint gives Invalid unless s is 40 hexadecimal digits.
func CheckFingerprint(s string) error {
	if len(s) != 40 || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return fault.InvalidField("fingerprint", "want 40 hexadecimal digits, got %.60q", s)
	}
	return nil
}

// CheckCountry gives Invalid unless s is two ASCII letters.
func CheckCountry(s string) error {
	if len(s) != 2 || !isWord(s, 2) || strings.ContainsAny(s, "0123456789") {
		return fault.InvalidField("country", "want two letters, got %.60q", s)
	}
	return nil
}

// Bridge is one bridge line.
type Bridge struct {
	Transport   string // obfs4, snowflake...; empty for a plain bridge
	Addr        string // address:port
	Fingerprint string // upper case, may be empty
	Args        map[string]string
}

// ParseBridge reads "[Bridge] [transport] address:port [fingerprint] [k=v...]".
// It refuses what a torrc would read differently: comments, quotes,
// backslashes, control characters.
func ParseBridge(line string) (Bridge, error) {
	bad := func(format string, args ...any) (Bridge, error) {
		return Bridge{}, fault.InvalidField("bridge", format, args...)
	}
	if len(line) > maxBridge {
		return bad("longer than %d bytes", maxBridge)
	}
	for _, c := range []byte(line) {
		if c < ' ' || c > '~' || strings.IndexByte("#\"\\", c) >= 0 {
			return bad("contains the character %q", c)
		}
	}
	f := strings.Fields(line)
	if len(f) > 0 && strings.EqualFold(f[0], "bridge") {
		f = f[1:]
	}
	if len(f) == 0 {
		return bad("is empty")
	}
	b := Bridge{}
	// A colon tells an address from a transport, which is a C identifier
	// (pt-spec, section 3.3).
	if !strings.Contains(f[0], ":") {
		name := f[0]
		if !isWord(strings.ReplaceAll(name, "_", "x"), 64) || name[0] <= '9' || strings.EqualFold(name, "bridge") {
			return bad("%.60q is neither a transport nor an address with a port", name)
		}
		if b.Transport, f = name, f[1:]; len(f) == 0 {
			return bad("lacks an address")
		}
	}
	addr, err := netip.ParseAddrPort(f[0])
	if err != nil || addr.Port() == 0 || addr.Addr().Zone() != "" {
		return bad("%.60q is no address with a port", f[0])
	}
	b.Addr, f = addr.String(), f[1:]
	if len(f) > 0 && CheckFingerprint(f[0]) == nil {
		b.Fingerprint, f = strings.ToUpper(f[0]), f[1:]
	}
	for _, arg := range f {
		k, v, ok := strings.Cut(arg, "=")
		if !ok || !isWord(strings.NewReplacer("-", "x", "_", "x").Replace(k), 64) {
			return bad("%.60q is neither a fingerprint nor name=value", arg)
		}
		if b.Transport == "" {
			return bad("%.60q needs a transport", arg)
		}
		if _, dup := b.Args[k]; dup {
			return bad("%s is given twice", k)
		}
		if b.Args == nil {
			b.Args = map[string]string{}
		}
		b.Args[k] = v
	}
	return b, nil
}

// String writes the line for a torrc, without the word Bridge, arguments in
// order of their names.
func (b Bridge) String() string {
	words := []string{b.Transport, b.Addr, b.Fingerprint}
	for _, k := range slices.Sorted(maps.Keys(b.Args)) {
		words = append(words, k+"="+b.Args[k])
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}
