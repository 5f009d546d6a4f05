//go:build linux

package nft_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Destinations that only generated packets have, so that they are recognised
// whatever the server does to their source. Nobody answers there.
var (
	markVPN4, markVPN6 = netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8:ff::77")
	markTor4, markTor6 = netip.MustParseAddr("203.0.113.66"), netip.MustParseAddr("2001:db8:ff::66")
	markEnd4           = netip.MustParseAddr("203.0.113.99")
)

// sniffer records what arrives at the internet's end of the server's uplink.
type sniffer struct {
	file *os.File

	mu    sync.Mutex
	times map[netip.Addr][]time.Time // when a packet to the address arrived, kernel time
}

func newSniffer(t testing.TB, w *world) *sniffer {
	t.Helper()
	s := &sniffer{times: make(map[netip.Addr][]time.Time)}
	must(t, w.internet.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		s.file = os.NewFile(uintptr(fd), "sniffer")
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}),
		)
	}))
	var done sync.WaitGroup
	done.Go(s.run)
	t.Cleanup(func() {
		_ = s.file.Close()
		done.Wait()
	})
	return s
}

func (s *sniffer) run() {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 2048), make([]byte, 128)
	for {
		var n, oobn int
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, _, recvErr = unix.Recvmsg(int(fd), buf, oob, 0)
			return recvErr != unix.EAGAIN
		})
		if err != nil || recvErr != nil {
			return
		}
		if dst := destination(buf[:n]); dst.IsValid() {
			s.mu.Lock()
			s.times[dst] = append(s.times[dst], stamp(oob[:oobn]))
			s.mu.Unlock()
		}
	}
}

// stamp is the kernel's time of arrival.
func stamp(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			return time.Unix(ts.Unix())
		}
	}
	return time.Time{}
}

// seen counts the packets to any of the addresses.
func (s *sniffer) seen(to ...netip.Addr) int { return len(s.arrivals(to...)) }

func (s *sniffer) arrivals(to ...netip.Addr) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Time
	for _, a := range to {
		all = append(all, s.times[a]...)
	}
	return all
}

// lost is how many packets the kernel could not hand over since the last call.
func (s *sniffer) lost(t testing.TB) uint32 {
	t.Helper()
	raw, err := s.file.SyscallConn()
	must(t, err)
	var stats *unix.TpacketStats
	var sockErr error
	must(t, raw.Control(func(fd uintptr) {
		stats, sockErr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}))
	must(t, sockErr)
	return stats.Drops
}
