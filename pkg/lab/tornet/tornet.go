//go:build linux

// Package tornet runs a whole Tor network of its own on the internet of a lab:
// a directory authority, a middle relay, an exit in each of several countries
// and an onion service. Clients in any machine of the lab use it with the lines
// that TorrcLines gives, and nothing of it ever reaches the real Tor network.
//
// The package owns the relays' processes, keys, files and addresses. It leaves
// the clients to whoever starts them, and what the exits reach to package lab.
// The layout and the intervals were chosen by measurement: one authority, which
// alone caches and serves directories, and many short voting intervals.
//
// A Network may be used from many goroutines. It belongs to the process that
// started it, whose end it survives; closing the lab removes all of it.
package tornet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
	"vpnd/pkg/link"
)

const (
	// readyTimeout bounds Start; a quiet machine needs about a third of it.
	readyTimeout = time.Minute
	// restartTimeout bounds StartExit, which has no context.
	restartTimeout = 15 * time.Second
	// dir is where the network has its files on the internet, and where every
	// machine has those that a client's torrc names.
	dir = "/run/tornet"
	// maxExits keeps the exits' addresses in their subnet.
	maxExits = 200
)

// Options says what to start.
type Options struct {
	// Countries are where the exits are, one in each, as two lower case letters.
	// Empty means de and nl.
	Countries []string
}

// Exit is a relay that connects to targets.
type Exit struct {
	Nickname    string
	Fingerprint string // of the relay's identity: 40 upper case hexadecimal digits
	Country     string // two lower case letters, as in ExitNodes {nl}
	// V4 and V6 are the relay's addresses and also what targets see.
	V4, V6 netip.Addr
}

// Network is a running Tor network.
type Network struct {
	lab       *lab.Lab
	internet  *lab.Machine
	tor       string // path of the program
	geoip     string
	geoip6    string
	authority string // the DirAuthority line
	onion     string
	exits     []Exit

	mu      sync.Mutex
	running map[string]*process // by nickname
	closed  bool
}

// Start is StartWith with an exit in de and one in nl.
func Start(ctx context.Context, l *lab.Lab) (*Network, error) { return StartWith(ctx, l, Options{}) }

// StartWith starts a network on the lab's internet and returns when every relay is in
// the consensus with the flags it needs, the target was fetched through each exit and
// the onion service can be reached. A lab has room for one network at a time: with a
// second it returns fault.Exists. On failure nothing of it is left but its addresses,
// which are the lab's until that is closed. Without tor it returns fault.Unavailable.
func StartWith(ctx context.Context, l *lab.Lab, o Options) (*Network, error) {
	if len(o.Countries) == 0 {
		o.Countries = []string{"de", "nl"}
	}
	if err := checkCountries(o.Countries); err != nil {
		return nil, err
	}
	tor, err := program("tor")
	if err != nil {
		return nil, err
	}
	gencert, err := program("tor-gencert")
	if err != nil {
		return nil, err
	}
	n := &Network{lab: l, internet: l.Machine(lab.Internet), tor: tor, running: map[string]*process{}}
	if err := n.internet.Do(func() error { return os.Mkdir(dir, 0o711) }); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fault.Wrap(err, fault.Exists, "lab %s has a tor network", l.ID())
		}
		return nil, err
	}
	for i, c := range o.Countries {
		v4, v6 := address(byte(firstExit + i))
		n.exits = append(n.exits, Exit{Nickname: "exit" + c, Country: c, V4: v4, V6: v6})
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := n.start(ctx, gencert); err != nil {
		return nil, errors.Join(fmt.Errorf("start a tor network: %w", err), n.Close())
	}
	return n, nil
}

func checkCountries(list []string) error {
	if len(list) > maxExits {
		return fault.InvalidField("countries", "%d are too many: at most %d", len(list), maxExits)
	}
	for i, c := range list {
		if len(c) != 2 || strings.Trim(c, "abcdefghijklmnopqrstuvwxyz") != "" {
			return fault.InvalidField("countries", "%q is not a country: two lower case letters", c)
		}
		if slices.Contains(list[:i], c) {
			return fault.InvalidField("countries", "%s is there twice", c)
		}
	}
	return nil
}

func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "%s is not installed", name).WithHint("apt-get install tor")
	}
	return path, nil
}

func (n *Network) start(ctx context.Context, gencert string) error {
	if err := n.addAddresses(); err != nil {
		return err
	}
	if err := n.writeShared(); err != nil {
		return err
	}
	fingerprint, err := n.makeKeys(ctx, gencert)
	if err != nil {
		return err
	}
	relays := n.relays(fingerprint)
	for _, r := range relays {
		if err := n.launch(r.nickname, r.torrc); err != nil {
			return err
		}
	}
	if err := n.waitConsensus(ctx, relays); err != nil {
		return err
	}
	for i := range n.exits {
		if err := n.readFingerprint(&n.exits[i]); err != nil {
			return err
		}
	}
	// Not earlier: a client that asks before the consensus has everybody waits
	// long before it asks again.
	if err := n.launch(onionName, n.onionTorrc()); err != nil {
		return err
	}
	if err := n.waitExits(ctx); err != nil {
		return err
	}
	return n.waitOnion(ctx)
}

// addAddresses gives the internet the addresses of all relays.
func (n *Network) addAddresses() error {
	hosts := []byte{authorityHost, middleHost}
	for i := range n.exits {
		hosts = append(hosts, byte(firstExit+i))
	}
	return n.internet.Do(func() error {
		links, err := link.Open()
		if err != nil {
			return err
		}
		defer links.Close()
		for _, h := range hosts {
			v4, v6 := address(h)
			for _, a := range []netip.Addr{v4, v6} {
				if err := links.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// TorrcLines is what the torrc of a client on a machine of the lab needs to use
// this network and no other. The files that they name are for everybody to read.
func (n *Network) TorrcLines() []string {
	return []string{
		"TestingTorNetwork 1",
		n.authority,
		"PathsNeededToBuildCircuits 0.6",
		"TestingDirConnectionMaxStall 5",
		"GeoIPFile " + filepath.Join(dir, geoIPName),
		"GeoIPv6File " + filepath.Join(dir, geoIP6Name),
	}
}

// GeoIP is the text of the IPv4 file that TorrcLines names: where the exits are.
func (n *Network) GeoIP() string { return n.geoip }

// Exits lists the exits in the order of Options.Countries, stopped ones too.
func (n *Network) Exits() []Exit { return slices.Clone(n.exits) }

// Onion is the host name of the onion service; its port 80 is the lab's target.
func (n *Network) Onion() string { return n.onion }

// StopExit ends the exit of a country the way a crash does: the consensus still
// has it. Stopping a stopped one is no error.
func (n *Network) StopExit(country string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, err := n.exit(country)
	if err != nil {
		return err
	}
	if p := n.running[e.Nickname]; p != nil {
		p.stop()
		delete(n.running, e.Nickname)
	}
	return nil
}

// StartExit starts a stopped exit again, with the identity that it had, and
// returns when it accepts connections. A relay that tried to reach it meanwhile
// may not try again for a minute (tor's OR_CONNECT_FAILURE_LIFETIME).
func (n *Network) StartExit(country string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, err := n.exit(country)
	if err != nil {
		return err
	}
	if p := n.running[e.Nickname]; p != nil {
		if p.alive() {
			return nil
		}
		delete(n.running, e.Nickname) // it ended by itself
	}
	p, err := n.spawn(e.Nickname)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), restartTimeout)
	defer cancel()
	if err := n.waitListening(ctx, p, netip.AddrPortFrom(e.V4, orPort)); err != nil {
		p.stop()
		return err
	}
	n.running[e.Nickname] = p
	return nil
}

// exit finds an exit of a network that is not closed. The caller holds mu.
func (n *Network) exit(country string) (Exit, error) {
	i := slices.IndexFunc(n.exits, func(e Exit) bool { return e.Country == country })
	if n.closed || i < 0 {
		return Exit{}, fault.New(fault.NotFound, "the tor network has no exit in %q", country)
	}
	return n.exits[i], nil
}

// Close ends every process of the network, waits for it and removes the files.
// Closing a closed network is no error.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	var wg sync.WaitGroup
	for _, p := range n.running {
		wg.Go(p.stop)
	}
	wg.Wait()
	clear(n.running)
	var errs []error
	for _, name := range n.lab.Names() {
		err := n.lab.Machine(name).Do(func() error { return os.RemoveAll(dir) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: the lab was closed first
			errs = append(errs, fmt.Errorf("remove the files of the tor network: %w", err))
		}
	}
	return errors.Join(errs...)
}
