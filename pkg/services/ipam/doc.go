// Package ipam is the service that owns addresses: an IPv4 and an IPv6 address
// in each lane for every device, from its first connect until it is deleted,
// then a rest in quarantine.
//
// It owns ipam.db and the promise that no address is ever held by two devices,
// whatever crashes when: a lease is durable before anybody hears of it, its end
// before its addresses are used again, and the database's unique constraints
// stand behind the pools in memory. It leaves who may have a lease to the
// sessions service. An Allocator may be used concurrently.
package ipam
