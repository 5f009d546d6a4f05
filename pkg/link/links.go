//go:build linux

package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// ErrNotSupported tells that this kernel cannot make a link of the wanted kind.
var ErrNotSupported = errors.New("the kernel does not support this kind of interface")

// socketTimeout bounds one exchange with the kernel, which answers in
// microseconds; only a lost answer ever meets it.
const socketTimeout = 5 * time.Second

// Links is an open handle on the interfaces of one network namespace.
type Links struct {
	h *netlink.Handle
}

// Open opens a handle on the namespace of the calling thread.
func Open() (*Links, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := h.SetSocketTimeout(socketTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Links{h: h}, nil
}

// Close lets go of the handle. Nothing that was set changes.
func (l *Links) Close() { l.h.Close() }

// byName finds a link; a missing one is fault.NotFound.
func (l *Links) byName(name string) (netlink.Link, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	nl, err := l.h.LinkByName(name)
	if err != nil {
		if isNotFound(err) {
			return nil, fault.Wrap(err, fault.NotFound, "interface %s does not exist", name)
		}
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return nl, nil
}

func checkName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return fault.InvalidField("interface", "%q is not an interface name: 1 to %d characters", name, unix.IFNAMSIZ-1)
	}
	return nil
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[netlink.LinkNotFoundError](err)
	return ok || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// dump repeats a listing that another change interrupted: the kernel says so,
// and the partial answer must not be taken for the whole.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		got, err := list()
		if try < 10 && errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		return got, err
	}
}

// checkPrefix refuses what the library would misread: IPv4 in IPv6 clothes.
func checkPrefix(path string, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return fault.InvalidField(path, "%s is not an IPv4 or IPv6 prefix", p)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}
}

// toPrefix is the reverse of ipNet; ok is false for nil and broken ones.
func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	if bits == 32 {
		a = a.Unmap()
	}
	p := netip.PrefixFrom(a, ones)
	return p, p.IsValid()
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
