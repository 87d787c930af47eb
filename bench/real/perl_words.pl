# Words, hashes of arrays, sorting, joining and substitution.
use strict;
use warnings;

my $lines = 100000;
my (%places, %count, @texts);
my $seed = 1;
for my $line (1 .. $lines) {
    my @words;
    for (1 .. 1 + $line % 9) {
        $seed = ($seed * 1103515245 + 12345) & 0x7fffffff;
        push @words, 'w' . $seed % 20011;
    }
    push @texts, join ' ', @words;
    $count{$_}++, push @{$places{$_}}, $line for @words;
}
my @common = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print scalar @common, " $common[0] $count{$common[0]}\n";
my $all = join "\n", map { s/w(\d+)5\b/uc "x$1-" . length $1/ger } @texts;
my %first = map { (split ' ', $_)[0] => [split /-/, $_] } split /\n/, $all;
print length $all, ' ', scalar keys %first, "\n";
my $sum = 0;
$sum += @{$places{$_}} * length for @common;
print "$sum\n";
