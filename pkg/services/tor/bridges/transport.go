package bridges

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"vpnd/pkg/torctl"
)

// finder gives the path of a program, or nothing.
type finder func(name string) string

// program looks in PATH and in the places that services often lack in theirs.
func program(name string) string {
	for _, p := range []string{name, "/usr/local/bin/" + name, "/usr/bin/" + name, "/usr/sbin/" + name, "/opt/tor/" + name} {
		path, err := exec.LookPath(p)
		if err != nil {
			continue
		}
		// Tor splits the line at spaces and knows no quotes there.
		if path, err = filepath.Abs(path); err == nil && !strings.ContainsAny(path, " \t\r\n\"#\\") {
			return path
		}
	}
	return ""
}

// transport is a pluggable transport: who can speak it, best first, and how
// to get one of them.
type transport struct {
	programs []string
	remedy   string
}

// transports are those that vpnd can set up. The names are those of bridge
// lines.
func transports() map[string]transport {
	obfs := transport{[]string{"lyrebird", "obfs4proxy"}, "apt-get install obfs4proxy"}
	return map[string]transport{
		"obfs3": obfs, "obfs4": obfs, "meek_lite": obfs, "scramblesuit": obfs,
		"snowflake": {[]string{"snowflake-client"}, "apt-get install snowflake-client"},
		"webtunnel": {[]string{"webtunnel-client", "lyrebird"}, "Debian has no package yet: put webtunnel-client or lyrebird of the Tor Project into /usr/local/bin"},
	}
}

// plugin is the program for a transport, or what is missing. A plain bridge
// needs none.
func (b *Book) plugin(name string) (path, missing string) {
	if name == "" {
		return "", ""
	}
	t, known := transports()[name]
	if !known {
		return "", "no program is known that speaks " + name
	}
	for _, p := range t.programs {
		if path = b.find(p); path != "" {
			return path, ""
		}
	}
	return "", strings.Join(t.programs, " or ") + " is not installed"
}

// remedy is how to get a transport.
func remedy(name string) string {
	if t, known := transports()[name]; known {
		return t.remedy
	}
	return "vpnctl tor bridge add a bridge of another kind: obfs4, snowflake, webtunnel or a plain one"
}

// torrc names bridges and the programs of their transports, one line for each
// program.
func (b *Book) torrc(all []torctl.Bridge) []string {
	lines := []string{"UseBridges 1"}
	speaks := map[string][]string{}
	var paths []string
	for _, v := range all {
		lines = append(lines, "Bridge "+v.String())
		path, _ := b.plugin(v.Transport)
		if path == "" || slices.Contains(speaks[path], v.Transport) {
			continue
		}
		if speaks[path] == nil {
			paths = append(paths, path)
		}
		speaks[path] = append(speaks[path], v.Transport)
	}
	for _, path := range paths {
		lines = append(lines, "ClientTransportPlugin "+strings.Join(speaks[path], ",")+" exec "+path)
	}
	return lines
}
