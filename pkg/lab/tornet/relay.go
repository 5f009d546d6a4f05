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
	resolvName = "resolv.conf"
)

// address is where a relay is: 192.0.2.host and 2001:db8:99::host.
func address(host byte) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{192, 0, 2, host}),
		netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x00, 0x99, 15: host})
}

// relay is a tor that is in the consensus.
type relay struct{ nickname, torrc string }

// writeShared writes what several programs read. The directory lets other users
// through, because a client may have dropped its privileges.
func (n *Network) writeShared() error {
	for _, e := range n.exits {
		b := e.V4.As4()
		ip := binary.BigEndian.Uint32(b[:])
		n.geoip += fmt.Sprintf("%d,%d,%s\n", ip, ip, strings.ToUpper(e.Country))
	}
	return errors.Join(
		os.Chmod(n.dir, 0o711),
		os.WriteFile(filepath.Join(n.dir, geoIPName), []byte(n.geoip), 0o644),
		os.WriteFile(filepath.Join(n.dir, resolvName), fmt.Appendf(nil, "nameserver %s\n", lab.ResolverV4), 0o644),
	)
}

// makeKeys makes the authority's two identities, which every torrc names, and
// returns its fingerprint as a relay.
func (n *Network) makeKeys(ctx context.Context, gencert string) (string, error) {
	dir := filepath.Join(n.dir, authorityName)
	keys := filepath.Join(dir, "keys")
	certificate := filepath.Join(keys, "authority_certificate")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return "", err
	}
	v4, _ := address(authorityHost)
	dirAddr := netip.AddrPortFrom(v4, dirPort)
	var wg sync.WaitGroup
	var certErr error
	wg.Go(func() {
		cmd := n.internet.CommandContext(ctx, gencert, "--create-identity-key", "-m", "12", "-a", dirAddr.String(),
			"--passphrase-fd", "0", "-i", filepath.Join(keys, "authority_identity_key"),
			"-s", filepath.Join(keys, "authority_signing_key"), "-c", certificate)
		cmd.Stdin = strings.NewReader("lab\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			certErr = fmt.Errorf("tor-gencert: %w: %s", err, out)
		}
	})
	// Any authority will do here: only the key is wanted.
	cmd := n.internet.CommandContext(ctx, n.tor, "--quiet", "--list-fingerprint", "--orport", "1",
		"--dirauthority", "x 127.0.0.1:1 "+strings.Repeat("f", 40), "--datadirectory", dir,
		"--nickname", authorityName, "--ignore-missing-torrc", "-f", filepath.Join(n.dir, "none"),
		"--defaults-torrc", filepath.Join(n.dir, "none"))
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
	cert, err := os.ReadFile(certificate)
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
		{authorityName, n.relayTorrc(authorityName, authorityHost) + fmt.Sprintf(authorityLines, netip.AddrPortFrom(v4, dirPort), authorityFP)},
		{middleName, n.relayTorrc(middleName, middleHost) + middleLines},
	}
	for i, e := range n.exits {
		lines := fmt.Sprintf(exitLines, e.V4, e.V6, filepath.Join(n.dir, resolvName))
		list = append(list, relay{e.Nickname, n.relayTorrc(e.Nickname, byte(firstExit+i)) + lines})
	}
	return list
}

// commonTorrc is what the network's own processes have in common.
func (n *Network) commonTorrc(name string) string {
	dir := filepath.Join(n.dir, name)
	return strings.Join(n.TorrcLines(), "\n") + fmt.Sprintf(`
DataDirectory %s
Log notice file %s
ShutdownWaitLength 0
SocksPort 0
`, dir, filepath.Join(dir, logName))
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
`, name, v4, v6, netip.AddrPortFrom(v4, orPort), netip.AddrPortFrom(v6, orPort), v4, v6)
}

// Relays do not cache directories, so that clients never ask one that has not
// everything yet; hence they are no directories of onion services either.
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

// onionTorrc logs what tells that the service's descriptor was taken.
func (n *Network) onionTorrc() string {
	dir := filepath.Join(n.dir, onionName)
	return n.commonTorrc(onionName) + fmt.Sprintf(`Log [rend]info file %s
HiddenServiceDir %s
HiddenServicePort 80 %s
`, filepath.Join(dir, uploadsName), filepath.Join(dir, "service"), netip.AddrPortFrom(lab.TargetV4, 80))
}

// readFingerprint takes it from the file that a relay writes when it starts.
func (n *Network) readFingerprint(e *Exit) error {
	b, err := os.ReadFile(filepath.Join(n.dir, e.Nickname, "fingerprint"))
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
