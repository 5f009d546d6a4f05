//go:build linux

package tornet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"vpnd/pkg/lab"
)

// The last byte of the relays' addresses.
const (
	authorityHost = 1
	middleHost    = 2
	firstExit     = 11
)

const (
	orPort  = 9001
	dirPort = 9030

	authorityName = "authority"
	middleName    = "middle"
	onionName     = "onion"

	geoIPName  = "geoip"
	geoIP6Name = "geoip6"
	resolvName = "resolv.conf"
)

// address is where a relay is: 192.0.2.host and 2001:db8:99::host.
func address(host byte) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{192, 0, 2, host}),
		netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x00, 0x99, 15: host})
}

// relay is a tor that is in the consensus, and the flags without which clients
// cannot use it for what it is there for.
type relay struct {
	nickname, torrc string
	flags           []string
}

// Clients use relays that are these for the connections that they prepare.
var (
	middleFlags = []string{"Running", "Valid", "Fast", "Stable"}
	exitFlags   = append([]string{"Exit"}, middleFlags...)
	// guardFlags make the authority everybody's guard: a guard must serve
	// directories, and the other relays do not.
	guardFlags = append([]string{"Guard", "V2Dir"}, middleFlags...)
)

// writeShared writes what several programs read, also those that have dropped
// their privileges.
func (n *Network) writeShared() error {
	for _, e := range n.exits {
		b := e.V4.As4()
		ip := binary.BigEndian.Uint32(b[:])
		country := strings.ToUpper(e.Country)
		n.geoip += fmt.Sprintf("%d,%d,%s\n", ip, ip, country)
		n.geoip6 += fmt.Sprintf("%s,%s,%s\n", e.V6, e.V6, country)
	}
	for _, name := range n.lab.Names() {
		err := n.lab.Machine(name).Do(func() error {
			return errors.Join(
				os.MkdirAll(dir, 0o755),
				os.Chmod(dir, 0o755), // the umask does not count here
				writePublic(geoIPName, n.geoip),
				writePublic(geoIP6Name, n.geoip6),
				writePublic(resolvName, fmt.Sprintf("nameserver %s\n", lab.ResolverV4)),
			)
		})
		if err != nil {
			return fmt.Errorf("files on %s: %w", name, err)
		}
	}
	return nil
}

func writePublic(name, text string) error {
	path := filepath.Join(dir, name)
	return errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chmod(path, 0o644))
}

// readFile reads a file on the internet.
func (n *Network) readFile(path ...string) ([]byte, error) {
	return n.internet.ReadFile(filepath.Join(append([]string{dir}, path...)...))
}

// makeKeys makes the authority's two identities, which every torrc names, and
// returns its fingerprint as a relay.
func (n *Network) makeKeys(ctx context.Context, gencert string) (string, error) {
	data := filepath.Join(dir, authorityName)
	keys := filepath.Join(data, "keys")
	const certificate = "authority_certificate"
	if err := n.internet.Do(func() error { return os.MkdirAll(keys, 0o700) }); err != nil {
		return "", err
	}
	v4, _ := address(authorityHost)
	dirAddr := netip.AddrPortFrom(v4, dirPort)
	var wg sync.WaitGroup
	var certErr error
	wg.Go(func() {
		cmd := n.internet.CommandContext(ctx, gencert, "--create-identity-key", "-m", "12", "-a", dirAddr.String(),
			"--passphrase-fd", "0", "-i", filepath.Join(keys, "authority_identity_key"),
			"-s", filepath.Join(keys, "authority_signing_key"), "-c", filepath.Join(keys, certificate))
		cmd.Dir = "/"
		cmd.Stdin = strings.NewReader("lab\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			certErr = fmt.Errorf("tor-gencert: %w: %s", err, out)
		}
	})
	// Any authority will do here: only the key is wanted.
	cmd := n.internet.CommandContext(ctx, n.tor, "--quiet", "--list-fingerprint", "--orport", "1",
		"--dirauthority", "x 127.0.0.1:1 "+strings.Repeat("f", 40), "--datadirectory", data,
		"--nickname", authorityName, "--ignore-missing-torrc", "-f", filepath.Join(dir, "none"),
		"--defaults-torrc", filepath.Join(dir, "none"))
	cmd.Dir = "/"
	out, err := cmd.Output()
	wg.Wait()
	if err != nil {
		err = fmt.Errorf("tor --list-fingerprint: %w: %s", err, out)
	}
	if err := errors.Join(certErr, err); err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	_, spaced, _ := strings.Cut(lines[len(lines)-1], " ")
	fingerprint := strings.ReplaceAll(spaced, " ", "")
	cert, err := n.readFile(authorityName, "keys", certificate)
	if err != nil {
		return "", err
	}
	v3 := ""
	for line := range strings.Lines(string(cert)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "fingerprint" {
			v3 = f[1]
		}
	}
	if len(fingerprint) != 40 || v3 == "" {
		return "", fmt.Errorf("no fingerprint in what tor says: %q, %q", out, v3)
	}
	n.authority = fmt.Sprintf("DirAuthority %s orport=%d no-v2 v3ident=%s %s %s", authorityName, orPort, v3, dirAddr, fingerprint)
	return fingerprint, nil
}

// relays lists who will be in the consensus, each with its torrc.
func (n *Network) relays(authorityFP string) []relay {
	v4, _ := address(authorityHost)
	list := []relay{
		{authorityName, n.relayTorrc(authorityName, authorityHost) + fmt.Sprintf(authorityLines, netip.AddrPortFrom(v4, dirPort), authorityFP), guardFlags},
		{middleName, n.relayTorrc(middleName, middleHost) + middleLines, middleFlags},
	}
	for i, e := range n.exits {
		lines := fmt.Sprintf(exitLines, e.V4, e.V6, filepath.Join(dir, resolvName))
		list = append(list, relay{e.Nickname, n.relayTorrc(e.Nickname, byte(firstExit+i)) + lines, exitFlags})
	}
	return list
}

// commonTorrc is what the network's own processes have in common.
func (n *Network) commonTorrc(name string) string {
	data := filepath.Join(dir, name)
	return strings.Join(n.TorrcLines(), "\n") + fmt.Sprintf(`
DataDirectory %s
Log notice file %s
ShutdownWaitLength 0
`, data, filepath.Join(data, logName))
}

func (n *Network) relayTorrc(name string, host byte) string {
	v4, v6 := address(host)
	return n.commonTorrc(name) + fmt.Sprintf(`Nickname %s
Address %s
Address [%s]
ORPort %s
ORPort %s
OutboundBindAddressOR %s
OutboundBindAddressOR [%s]
ContactInfo none
AssumeReachable 1
SocksPort 0
`, name, v4, v6, netip.AddrPortFrom(v4, orPort), netip.AddrPortFrom(v6, orPort), v4, v6)
}

// Relays do not cache directories, so that clients never ask one that has not
// everything yet; hence they are no directories of onion services either, nor
// guards. Fast and Stable go to the better half of a real network; here a second
// of uptime or a kilobyte decided, and without the two the authority is no guard
// and clients stop before their first circuit until a later consensus.
const authorityLines = `DirPort %s
ExitRelay 0
ExitPolicy reject *:*
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
TestingV3AuthInitialVotingInterval 5
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 10
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir %s
TestingDirAuthVoteHSDirIsStrict 1
TestingMinExitFlagThreshold 0
TestingAuthDirTimeToLearnReachability 0
AuthDirFastGuarantee 1
AuthDirVoteStableGuaranteeMinUptime 0
AuthDirVoteStableGuaranteeMTBF 0
`

const middleLines = `DirCache 0
ExitRelay 0
ExitPolicy reject *:*
`

const exitLines = `DirCache 0
ExitRelay 1
IPv6Exit 1
ExitPolicyRejectPrivate 0
ExitPolicy accept *:*
OutboundBindAddressExit %s
OutboundBindAddressExit [%s]
ServerDNSResolvConfFile %s
ServerDNSAllowBrokenConfig 1
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
`

// onionTorrc logs what tells that the service's descriptor was taken. Its SOCKS
// port is for waitExits: a name for the target through each exit.
func (n *Network) onionTorrc() string {
	data := filepath.Join(dir, onionName)
	torrc := n.commonTorrc(onionName) + fmt.Sprintf(`Log [rend]info file %s
HiddenServiceDir %s
HiddenServicePort 80 %s
SocksPort %s
`, filepath.Join(data, uploadsName), filepath.Join(data, "service"), netip.AddrPortFrom(lab.TargetV4, 80), probeAddr)
	for _, e := range n.exits {
		torrc += fmt.Sprintf("MapAddress %s %s.%s.exit\n", probeName(e), lab.TargetV4, e.Fingerprint)
	}
	return torrc
}

// probeAddr is on the loopback of the internet, where nobody else uses it.
const probeAddr = "127.0.0.1:9050"

func probeName(e Exit) string { return e.Nickname + ".probe" }

// readFingerprint takes it from the file that a relay writes when it starts.
func (n *Network) readFingerprint(e *Exit) error {
	b, err := n.readFile(e.Nickname, "fingerprint")
	if err != nil {
		return err
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return fmt.Errorf("fingerprint of %s: %q", e.Nickname, b)
	}
	e.Fingerprint = f[1]
	return nil
}
