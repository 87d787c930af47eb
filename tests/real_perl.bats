#!/usr/bin/env bats
# perl: hashes, sorting, regular expressions, large strings, interpreter threads, fork; the same output on both.
# shellcheck disable=SC2154  # root, build, hakrun, limit and long are set there
load support/real

script() {
    export PERL_HASH_SEED=0 long
    cat >work.pl <<'PL'
use strict; use warnings;
use JSON::PP; use Data::Dumper; use Digest::MD5 qw(md5_hex);
my $n = 15_000;
my $digest = '';
sub mix { $digest = md5_hex($digest . join "\0", @_) }

my %h;
for my $round (1 .. $ENV{long}) {
    %h = ();
    $h{"key" . $_ * 7919 % 100_003} = { id => $_, list => [ map { $_ * 3 } 1 .. $_ % 9 ], text => "x" x ($_ % 300) } for 1 .. $n;
    mix(map { "$_ $h{$_}{id}" } sort keys %h);
    delete @h{ grep { $h{$_}{id} % 3 } sort keys %h };
    my $json = JSON::PP->new->canonical;
    my @part = map { $h{$_} } (sort keys %h)[ 0 .. 400 ];
    my $text = $json->encode(\@part);
    mix($text, $json->encode($json->decode($text)) eq $text);
    my $long = join ",", map { sprintf "%08x", $_ * 2654435761 % 4294967296 } 1 .. 50 * $n;
    (my $other = $long) =~ s/([0-9]{2,})([a-f])/<$2$1>/g;
    mix(length $other, $other, scalar(() = $other =~ /<a/g));
    my $grow = '';
    $grow .= chr(65 + $_ % 26) x 100 for 1 .. $n * 3;
    mix(length $grow, reverse $grow);
    print "digest $digest\n";
}

my ($read, $write);
pipe $read, $write;
my $pid = fork // die;
if (!$pid) { print $write md5_hex(join ",", map { $_ x 5 } sort keys %h), "\n"; close $write; exit 0 }
close $write;
print "child ", <$read>;
waitpid $pid, 0;
print "status $?\n";

require Config;
if ($Config::Config{useithreads}) {
    require threads;
    my @t = map { my $k = $_; threads->create(sub { my %m = map { $_ => $_ x $k } 1 .. 2000; md5_hex(join ",", @m{ sort keys %m }) }) } 1 .. 6;
    print "thread ", $_->join, "\n" for @t;
}
open my $maps, '<', '/proc/self/maps' or die;
open my $out, '>', 'maps' or die;
print $out scalar(grep { m{/libhakmem} } <$maps>);
PL
}

compare() {
    script
    on_both perl ../work.pl
    grep -q '^digest ' hakmem/out
    [ "$(cat libc/maps)" = 0 ]
    [ "$(cat hakmem/maps)" -gt 0 ]
    served perl 10000000
}

@test "perl gives the same output on hakmem" {
    compare
}

@test "perl gives the same output on the checked library" {
    HAKRUN_FLAGS=--checked compare
}
