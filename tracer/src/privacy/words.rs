//! Words that tell nothing of the machine they were found on.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Of packet filters, network tools, errors of the kernel and podtrace's own remarks.
const WORDS: &str = "\
a accept account accounting action active add addr address addresses addrtype advertisement after \
again all allow allowed already an and any anycast ap are arp arphrd as at attach attached available \
bad base be because before behind being between blackhole blocking bogus both bridge broadcast \
buffer but by bytes call cannot capture carrier chain chains change changed check checksum clamp \
class clone closed cluster code comment conf conntrack connection connections continue could count \
counter counters created ct ctdir ctstate ctstatus daddr dead default delay denied dev device \
devices dir disabled discard disabled does down dpt dport dports drop dropped drops dst dstport \
dummy dump during dynamic each early ecn egress either element elements empty end entry entries error \
errors estab established ether ethernet every exceeded exist exists expected expected facts failed family \
fib fifo file filter finwait first flag flags flow flush for forward forwarding found fq_codel \
fragment fragmentation fragments from full function gateway get given gone goto gre group half \
hairpin handle has have header hook hop hoplimit host htb icmp icmpv6 icmpx id if igmp iif iifname ime \
in inactive incoming incomplete inet inet6 ingress input instead interface interfaces internal \
into invalid ip ip6 ipsec iptables ipv4 ipv6 is isolated it its jump kernel kind known l2 l3 l4 \
l4proto last leads learning least left length level limit link list listen listening local log \
long lower loopback lost lladdr lowerlayerdown m mac mark mask masquerade match matches mode module \
modules more most mss mtu multicast multiport must name names namespace nat neigh neighbor \
neighbour netdev netfilter netlink netns network new next nf nft nftables nh no noarp node noop \
noqueue none nor not notrack nothing notpresent nor nothing nud nud null number object of off offload \
oif oifname old on one only open operation option options or order other out outgoing output over \
overhead p packet packets pair parent part path peer per permanent permission permitted physdev \
physical pkttype pmtu pod podtrace policy port ports possible postrouting prefsrc prerouting \
present prio priority private probe process prog program programs prohibit proto protocol qdisc \
queue quota random range ratelimit raw rcu rcvbuf reachable read recorded recording recv redirect \
refused reject rejected related remote reply request resource return rev reverse role route router \
routes routing rpfilter rule rules s saddr sctp second security see seen send sent set sets short \
size sk snat socket source spt sport sports src srctype srv stale state statistic statistics status \
stays still stopped stp stream such support supported syn sysctl table tables tables tap tc tcp \
that the their them then there these they this throw time timed timeout timewait to tool too tos \
trace traffic ttl tun tunnel two type types udp udplite unavailable unicast unknown unreachable \
until unreplied untracked up upper use used user v4 v6 value values version veth via vlan vmap vni \
vxlan was were what when where which while wire with within without would write wrong xdp xfrm yes \
zone 0 wlan host \
local netkit ipip sit bond team macvlan ipvlan vrf wireguard geneve permit \
mangle tproxy connmark ctmark \
filter_forward FORWARD INPUT OUTPUT PREROUTING POSTROUTING ACCEPT DROP REJECT RETURN MASQUERADE \
SNAT DNAT REDIRECT MARK CONNMARK LOG NOTRACK TCPMSS CT NFLOG QUEUE NFQUEUE ESTABLISHED RELATED \
INVALID NEW UNTRACKED LOCAL UNICAST BROADCAST MULTICAST A P N I D U SYN ACK FIN RST PSH URG ALL \
NONE ARP ICMP ICMPv6 IP IPv4 IPv6 MAC MTU TCP UDP VXLAN TUN \
iptables-legacy iptables-nft nft-only icmp-port-unreachable icmp-host-unreachable \
icmp-net-unreachable icmp-admin-prohibited icmp-host-prohibited icmp-net-prohibited \
icmp6-adm-prohibited icmp6-port-unreachable icmp6-no-route icmp6-addr-unreachable tcp-reset \
port-unreachable host-unreachable admin-prohibited no-route dst-type src-type ctorigdst \
to-source to-destination to-ports set-mark set-xmark reject-with random-fully \
SYN_SENT SYN_RECV FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2 SRC_TYPE DST_TYPE \
clsact pfifo pfifo_fast bfifo tbf netem mq multiq cake codel sfq ingress_egress \
";

static KNOWN: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| WORDS.split_ascii_whitespace().collect());

/// Whether a word is no name: it is known, or a number.
pub(super) fn is_harmless(word: &str) -> bool {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let hex = |word: &str| {
        word.strip_prefix("0x").is_some_and(|d| {
            // Longer ones may be addresses, of the kernel's or of a pod: `match 0xaf40202`.
            (1..=6).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_hexdigit())
                || d.len() == 8 && d.bytes().all(|b| b == b'f')
        })
    };
    // Options of iptables begin with one or two dashes.
    // A single letter is an option too, unless it is a known name.
    let bare = word.trim_start_matches('-');
    bare.len() < 2
        || KNOWN.contains(bare)
        || (number(bare) && !(7..=8).contains(&bare.len()) && bare.len() <= 10)
        || hex(bare)
}
