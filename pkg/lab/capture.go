//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// snapLen is more than all headers together, extensions included.
	snapLen = 512
	// captureBuffer is what the kernel may hold while this process does not run.
	captureBuffer = 32 << 20
	// maxPackets bounds a capture's memory, to some 30 MB.
	maxPackets = 250_000
)

// Capture records the IP packets that pass an interface.
type Capture struct {
	file  *os.File
	raw   syscall.RawConn
	names map[int]string // of interfaces, by index
	lab   *Lab
	done  chan struct{}

	mu       sync.Mutex
	packets  []Packet
	dropped  int
	stopOnce sync.Once
}

// Capture starts to record what passes an interface of the machine, in both
// directions, until Stop or until ctx ends. An empty iface means every one that
// there is now or comes later. Packets that leave are seen after the firewall,
// those that arrive before it.
func (m *Machine) Capture(ctx context.Context, iface string) (*Capture, error) {
	c := &Capture{lab: m.lab, names: map[int]string{}, done: make(chan struct{})}
	if err := m.Do(func() error { return c.open(iface) }); err != nil {
		return nil, fmt.Errorf("capture %s of %s: %w", iface, m.plan.name, err)
	}
	if err := m.lab.hold(c, c.Stop); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	go c.read()
	go func() {
		select {
		case <-ctx.Done():
			c.Stop()
		case <-c.done:
		}
	}()
	return c, nil
}

func (c *Capture) open(iface string) (err error) {
	index := 0
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		c.names[l.Index] = l.Name
		if l.Name == iface {
			index = l.Index
		}
	}
	if iface != "" && index == 0 {
		return errors.New("no such interface")
	}
	// Without link-layer headers, so that Ethernet and tunnels look the same, and
	// deaf until it is bound to the one interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index}),
	)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	c.file = os.NewFile(uintptr(fd), "capture")
	c.raw, err = c.file.SyscallConn()
	if err != nil {
		return errors.Join(err, c.file.Close())
	}
	return nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

func (c *Capture) read() {
	defer close(c.done)
	buf, oob := make([]byte, snapLen), make([]byte, 128)
	err := c.raw.Read(func(fd uintptr) bool {
		c.drain(int(fd), buf, oob)
		return false // until the deadline that Stop sets
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// What came before the stop is waiting in the socket.
		_ = c.raw.Control(func(fd uintptr) { c.drain(int(fd), buf, oob) })
	}
}

// drain records what the socket has.
func (c *Capture) drain(fd int, buf, oob []byte) {
	for {
		n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		if err == unix.EINTR || err == unix.ENETDOWN {
			continue // the latter once, when an interface goes down
		}
		if err != nil {
			return
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || (ll.Protocol != networkOrder(unix.ETH_P_IP) && ll.Protocol != networkOrder(unix.ETH_P_IPV6)) {
			continue
		}
		p, err := parsePacket(buf[:min(n, len(buf))])
		if err != nil {
			continue
		}
		p.Time = timestamp(oob[:oobn])
		p.Out = ll.Pkttype == unix.PACKET_OUTGOING
		p.Len = n // an offloaded packet is longer than its header can say
		p.Interface = c.nameOf(fd, ll.Ifindex)
		c.mu.Lock()
		if len(c.packets) < maxPackets {
			c.packets = append(c.packets, p)
		} else {
			c.dropped++
		}
		c.mu.Unlock()
	}
}

// nameOf asks the socket for interfaces that came after the start: it is in the
// machine, the calling thread is not.
func (c *Capture) nameOf(fd, index int) string {
	if name, ok := c.names[index]; ok {
		return name
	}
	req := ifreqIndex{index: int32(index)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return fmt.Sprintf("#%d", index) // gone already
	}
	c.names[index] = unix.ByteSliceToString(req.name[:])
	return c.names[index]
}

// ifreqIndex is struct ifreq of netdevice(7) with ifr_ifindex, at its full size.
type ifreqIndex struct {
	name  [unix.IFNAMSIZ]byte
	index int32
	_     [20]byte
}

// timestamp is when the kernel saw the packet.
func timestamp(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range msgs {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now()
}

// Stop ends the recording. Everything that passed before the call is recorded.
func (c *Capture) Stop() {
	c.stopOnce.Do(func() {
		_ = c.file.SetReadDeadline(time.Now())
		<-c.done
		_ = c.raw.Control(func(fd uintptr) {
			if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				c.mu.Lock()
				c.dropped += int(st.Drops)
				c.mu.Unlock()
			}
		})
		_ = c.file.Close()
		c.lab.drop(c)
	})
}

// Packets is what was recorded so far, in order.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets)
}

// Dropped is how many packets passed unrecorded, because there were too many:
// complete after Stop.
func (c *Capture) Dropped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}
