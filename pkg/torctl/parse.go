package torctl

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/fault"
)

// Event is one asynchronous message of tor.
type Event struct {
	Code   string            // CIRC, STREAM, STATUS_CLIENT...
	Args   []string          // words without a keyword, in order, unquoted
	Fields map[string]string // KEYWORD=value, unquoted; the first of two wins
	Lines  []string          // what follows the first line
	Raw    string            // all of it, as tor wrote it
	Lost   int               // how many events before this one the reader was too slow for
}

// Circuit is one circuit, from CIRC events and Circuits.
type Circuit struct {
	ID, Status string // status: LAUNCHED, BUILT, EXTENDED, FAILED, CLOSED...
	Path       []Hop
	Purpose    string
	BuildFlags []string
	Fields     map[string]string // the rest, such as REASON, CONFLUX_ID, TIME_CREATED
}

// Hop is one relay of a circuit; Nickname may be empty.
type Hop struct{ Fingerprint, Nickname string }

// Stream is one stream, from STREAM events and Streams. Source and Purpose are
// known in NEW and NEWRESOLVE events only.
type Stream struct {
	ID, Status string // status: NEW, SENTCONNECT, SUCCEEDED, FAILED, CLOSED, DETACHED...
	Circuit    string // "0": not attached
	Target     string // host:port, chosen by the user of the stream
	Source     netip.AddrPort
	Purpose    string
	Fields     map[string]string
}

// positional is how many words of an event are never KEYWORD=value: a user
// chooses the target of a stream and must not choose its SOURCE_ADDR with it.
var positional = map[string]int{"STREAM": 4, "CIRC": 2, "ADDRMAP": 3}

// ParseEvent reads the text of an event after its status code, lines split by
// \n. It gives Invalid for what no tor writes.
func ParseEvent(raw string) (Event, error) {
	head, rest, more := strings.Cut(raw, "\n")
	code, args, _ := strings.Cut(head, " ")
	if !isKey(code) {
		return Event{}, fault.New(fault.Invalid, "event without a code")
	}
	e := Event{Code: code, Raw: raw}
	if more {
		e.Lines = strings.Split(rest, "\n")
	}
	var err error
	e.Args, e.Fields, err = parseWords(args, positional[code])
	return e, err
}

// Stream reads a STREAM event.
func (e Event) Stream() (Stream, bool) {
	if e.Code != "STREAM" || len(e.Args) < 4 {
		return Stream{}, false
	}
	return Stream{ID: e.Args[0], Status: e.Args[1], Circuit: e.Args[2], Target: e.Args[3],
		Source: parseSource(e.Fields["SOURCE_ADDR"]), Purpose: e.Fields["PURPOSE"], Fields: e.Fields}, true
}

// parseSource reads address:port as tor writes it: IPv6 without brackets. What
// has no address, such as tor's own "(Tor_internal):1234", is the zero value.
func parseSource(s string) netip.AddrPort {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s[:i], "["), "]"))
	if err != nil {
		return netip.AddrPort{}
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, uint16(port))
}

// Circuit reads a CIRC event.
func (e Event) Circuit() (Circuit, bool) {
	if e.Code != "CIRC" || len(e.Args) < 2 {
		return Circuit{}, false
	}
	c := Circuit{ID: e.Args[0], Status: e.Args[1], Purpose: e.Fields["PURPOSE"], Fields: e.Fields}
	if flags := e.Fields["BUILD_FLAGS"]; flags != "" {
		c.BuildFlags = strings.Split(flags, ",")
	}
	if len(e.Args) > 2 {
		for hop := range strings.SplitSeq(e.Args[2], ",") {
			fp, nick := strings.TrimPrefix(hop, "$"), ""
			if i := strings.IndexAny(fp, "~="); i >= 0 {
				fp, nick = fp[:i], fp[i+1:]
			}
			c.Path = append(c.Path, Hop{fp, nick})
		}
	}
	return c, true
}

// ClockSkew reads how far this machine's clock is from the true time, as a
// relay or a consensus showed it; negative when the clock is behind. Two events
// carry it. "STATUS_GENERAL ... CLOCK_SKEW SKEW=seconds SOURCE=where" comes once
// per observation; older tors write MIN_SKEW, a lower bound, for a consensus
// from the future. "STATUS_CLIENT ... BOOTSTRAP ... REASON=CLOCK_SKEW" says only
// in words how much, and is not read here.
func (e Event) ClockSkew() (time.Duration, bool) {
	if e.Code != "STATUS_GENERAL" || len(e.Args) < 2 || e.Args[1] != "CLOCK_SKEW" {
		return 0, false
	}
	n, err := strconv.ParseInt(cmp.Or(e.Fields["SKEW"], e.Fields["MIN_SKEW"]), 10, 64)
	if err != nil || n > maxSkew || n < -maxSkew {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// maxSkew is a century in seconds: more is no clock, and overflows at three.
const maxSkew = 100 * 366 * 86400

// parseWords splits words and KEYWORD=value pairs, where a value may be a
// quoted string. The first n words are never pairs.
func parseWords(s string, n int) (args []string, fields map[string]string, err error) {
	fields = map[string]string{}
	for {
		if s = strings.TrimLeft(s, " "); s == "" {
			return args, fields, nil
		}
		key := ""
		if k, v, ok := strings.Cut(s, "="); ok && len(args) >= n && isKey(k) {
			key, s = k, v
		}
		var v string
		if strings.HasPrefix(s, `"`) {
			if v, s, err = unquote(s); err != nil {
				return nil, nil, err
			}
		} else if i := strings.IndexByte(s, ' '); i >= 0 {
			v, s = s[:i], s[i:]
		} else {
			v, s = s, ""
		}
		if key == "" {
			args = append(args, v)
		} else if _, dup := fields[key]; !dup {
			fields[key] = v
		}
	}
}

// unquote reads the quoted string (control-spec, section 2.1.1) that s starts
// with, and gives what follows it.
func unquote(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if rest = s[i+1:]; rest != "" && rest[0] != ' ' {
				return "", "", fault.New(fault.Invalid, "text behind a quoted string")
			}
			return b.String(), rest, nil
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(s):
			i++
			switch c := s[i]; c {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '0', '1', '2', '3', '4', '5', '6', '7':
				v, j := 0, i
				for ; j < len(s) && j < i+3 && s[j] >= '0' && s[j] <= '7'; j++ {
					v = v*8 + int(s[j]-'0')
				}
				b.WriteByte(byte(v))
				i = j - 1
			default:
				b.WriteByte(c)
			}
		}
	}
	return "", "", fault.New(fault.Invalid, "quoted string without an end")
}

// quote writes a quoted string that tor reads back unchanged; line breaks are
// refused before anything is sent.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func isKey(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
