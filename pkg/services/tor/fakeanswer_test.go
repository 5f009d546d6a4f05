package tor

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// answer gives the reply and the events that follow.
func (f *fake) answer(o orders, line string) (reply string, events []string) {
	w := strings.Fields(line)
	switch w[0] {
	case "PROTOCOLINFO":
		return "250-PROTOCOLINFO 1\n250-AUTH METHODS=NULL\n250-VERSION Tor=\"0.4.9.11\"\n250 OK\n", nil
	case "GETCONF":
		return "250 " + w[1] + "=" + map[string]string{"Nickname": f.nickname, "EnforceDistinctSubnets": "0"}[w[1]] + "\n", nil
	case "GETINFO":
		if w[1] == "address" {
			return "551 Address unknown\n", nil
		}
		var b strings.Builder
		for _, key := range w[1:] {
			if v := f.info(o, key); strings.Contains(v, "\n") {
				b.WriteString("250+" + key + "=\n" + v + ".\n")
			} else {
				b.WriteString("250-" + key + "=" + v + "\n")
			}
		}
		return b.String() + "250 OK\n", nil
	case "SIGNAL":
		if why := f.load(); why != "" {
			f.log("warn", "Failed to parse/validate config: "+why)
			f.log("err", "Reading config failed--see warnings above.")
		}
	case "EXTENDCIRCUIT":
		id, path := f.circuit(strings.Join(w[2:min(3, len(w))], ""), o.NoCircuits)
		if o.NoCircuits {
			return "250 EXTENDED " + id + "\n", []string{"CIRC " + id + " FAILED " + path + " REASON=TIMEOUT"}
		}
		return "250 EXTENDED " + id + "\n", []string{"CIRC " + id + " BUILT " + path + " PURPOSE=GENERAL"}
	case "CLOSECIRCUIT":
		if _, ok := f.circuits[w[1]]; !ok {
			return "552 Unknown circuit\n", nil
		}
		delete(f.circuits, w[1])
		for _, id := range slices.Sorted(maps.Keys(f.streams)) {
			if f.carrier[id] == w[1] {
				events = append(events, "STREAM "+id+" CLOSED "+w[1]+" "+f.streams[id]+" REASON=DESTROY")
				delete(f.streams, id)
			}
		}
		return "250 OK\n", append(events, "CIRC "+w[1]+" CLOSED REASON=REQUESTED")
	case "CLOSESTREAM":
		delete(f.streams, w[1])
		return "250 OK\n", []string{"STREAM " + w[1] + " CLOSED 0 x:1 REASON=MISC"}
	case "ATTACHSTREAM":
		on := w[2]
		if on == "0" {
			var path string
			on, path = f.circuit("", false)
			events = append(events, "CIRC "+on+" BUILT "+path+" PURPOSE=GENERAL")
		}
		f.carrier[w[1]] = on
		return "250 OK\n", append(events, "STREAM "+w[1]+" SENTCONNECT "+on+" "+f.streams[w[1]])
	}
	return "250 OK\n", nil
}

func (f *fake) circuit(path string, fails bool) (id, shown string) {
	f.last++
	id = strconv.Itoa(f.last)
	if path == "" {
		path = strings.Join([]string{"$" + relayFP(0), "$" + relayFP(1), "$" + relayFP(2)}, ",")
	}
	if !fails {
		f.circuits[id] = path
	}
	return id, path
}

func (f *fake) info(o orders, key string) string {
	flag := map[bool]string{true: "1", false: "0"}
	switch key {
	case "version":
		return "0.4.9.11"
	case "status/bootstrap-phase":
		warning := ""
		if o.Warning != "" {
			warning = fmt.Sprintf(" WARNING=%q", o.Warning)
		}
		return fmt.Sprintf("NOTICE BOOTSTRAP PROGRESS=%d TAG=x SUMMARY=\"Going on\"%s", o.Bootstrap, warning)
	case "status/enough-dir-info":
		return flag[o.Dir]
	case "status/circuit-established":
		return flag[o.Circuit]
	case "network-liveness":
		return map[bool]string{true: "up", false: "down"}[o.Live]
	case "traffic/read", "traffic/written":
		return "7"
	case "circuit-status":
		var b strings.Builder
		for _, id := range slices.Sorted(maps.Keys(f.circuits)) {
			b.WriteString(id + " BUILT " + f.circuits[id] + " PURPOSE=GENERAL TIME_CREATED=2038-01-01T00:00:00.000000\n")
		}
		return b.String()
	case "stream-status":
		var b strings.Builder
		for _, id := range slices.Sorted(maps.Keys(f.streams)) {
			b.WriteString(id + " NEW 0 " + f.streams[id] + "\n")
		}
		return b.String()
	case "consensus/valid-after":
		return fmt.Sprintf("2038-01-01 00:00:%02d", len(o.Exits))
	case "ns/all", "md/all":
		ns, md := consensus(o.Exits)
		return map[string]string{"ns/all": ns, "md/all": md}[key]
	case "entry-guards":
		return "$" + relayFP(0) + "~n0 up\n"
	case "address-mappings/all":
		return "10.192.0.7 abc.onion NEVER\n"
	}
	if _, addr, ok := strings.Cut(key, "ip-to-country/10."); ok {
		n, _, _ := strings.Cut(addr, ".")
		if i, _ := strconv.Atoi(n); i >= 2 && i-2 < len(o.Exits) {
			return o.Exits[i-2]
		}
	}
	return "??"
}

func relayID(i int) []byte { id := sha256.Sum256(fmt.Append(nil, i)); return id[:20] }

func relayFP(i int) string { return strings.ToUpper(hex.EncodeToString(relayID(i))) }

// consensus has a guard, a middle and an exit for each country.
func consensus(exits []string) (ns, md string) {
	if len(exits) == 0 {
		return "", ""
	}
	b64 := base64.RawStdEncoding.EncodeToString
	for i := range len(exits) + 2 {
		flags, policy := "Fast Guard Running Stable Valid", ""
		if i >= 2 {
			flags, policy = "Exit Fast Running Valid", "p accept 80,443\n"
		}
		body := "onion-key\nntor-onion-key " + relayFP(i) + "\n" + policy
		sum := sha256.Sum256([]byte(body))
		ns += fmt.Sprintf("r n%d %s %s 2038-01-01 00:00:00 10.%d.0.1 9001 0\ns %s\nw Bandwidth=10\n", i, b64(relayID(i)), b64(sum[:20]), i, flags)
		md += body
	}
	return ns, md
}
