package tor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/torctl"
)

const (
	checkTimeout = 30 * time.Second
	checkMax     = 64 << 10 // bytes of the answer that are read
)

// check fetches the page through tor's own socket, which no device reaches.
func (s *Service) check(ctx context.Context) (*api.Check, error) {
	out := &api.Check{URL: s.cfg.CheckURL}
	c, err := s.tor()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	at := time.Now()
	seen, err := fetchAddress(ctx, s.paths.socks(), s.cfg.CheckURL)
	out.TookMs = time.Since(at).Milliseconds()
	if err != nil {
		if out.Message = err.Error(); errors.Is(ctx.Err(), context.DeadlineExceeded) {
			out.Message = fmt.Sprintf("no answer within %d s", checkTimeout/time.Second)
		}
		return out, nil
	}
	out.Seen = seen
	if out.Country, err = c.Country(ctx, seen); err != nil {
		out.Country = "" // no GeoIP file
	}
	if ours(ctx, c, seen) {
		out.Message = fmt.Sprintf("the page saw %s, which is this host's own address", seen)
		return out, nil
	}
	out.OK, out.Message = true, fmt.Sprintf("the page saw %s, which is not this host's", seen)
	return out, nil
}

// ours says whether an address is this host's: one that can be bound here, or
// the one that relays see.
func ours(ctx context.Context, c *torctl.Client, a netip.Addr) bool {
	if l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))); err == nil {
		_ = l.Close()
		return true
	}
	outside, err := c.Address(ctx)
	return err == nil && outside == a
}

// fetchAddress gets a page by SOCKS and finds the first address in it, be it
// plain text or JSON.
func fetchAddress(ctx context.Context, socket, page string) (netip.Addr, error) {
	socks, err := proxy.SOCKS5("unix", socket, nil, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: socks.(proxy.ContextDialer).DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := err.(*url.Error); ok {
			err = u.Err // the URL is known
		}
		return netip.Addr{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, checkMax))
	if err != nil {
		return netip.Addr{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return netip.Addr{}, fmt.Errorf("the page answered %s", resp.Status)
	}
	if a, ok := findAddress(string(body)); ok {
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("the page's answer holds no address")
}

// findAddress gives the first IP address among the words of a text. The
// unspecified one is nobody's: "::" is also a word of programs.
func findAddress(text string) (netip.Addr, bool) {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'<>{}[](),;=", r) }) {
		a, err := netip.ParseAddr(word)
		if err != nil {
			ap, _ := netip.ParseAddrPort(word)
			a = ap.Addr()
		}
		if a = a.WithZone("").Unmap(); a.IsValid() && !a.IsUnspecified() {
			return a, true
		}
	}
	return netip.Addr{}, false
}
