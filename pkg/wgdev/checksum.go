package wgdev

import "golang.zx2c4.com/wireguard/tun"

// summed mends UDP over IPv6 whose checksum comes to zero. It has to be sent as
// FFFF: zero says that there is none, and a receiver throws such a datagram away
// (RFC 8200, section 8.1). wireguard-go computes the checksums that the kernel left
// to it and does not know that rule, so one datagram of 65,536 was lost, and the
// same one again whenever it was repeated.
type summed struct{ tun.Device }

func (d summed) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.Device.Read(bufs, sizes, offset)
	for i := range n {
		mendSum(bufs[i][offset : offset+sizes[i]])
	}
	return n, err
}

// mendSum is for a packet whose UDP header follows that of IPv6 at once: kernels
// leave no checksum behind extension headers to others.
func mendSum(p []byte) {
	const version, next, sum, data = 0, 6, 46, 48
	if len(p) >= data && p[version]>>4 == 6 && p[next] == 17 && p[sum] == 0 && p[sum+1] == 0 {
		p[sum], p[sum+1] = 0xff, 0xff
	}
}
