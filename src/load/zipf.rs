use rand::RngExt;
use rand::rngs::SmallRng;

/// Draws ranks; 0 comes most often: rank k with a probability in proportion to 1 / (k +
/// 1)^exponent. Uses Walker's alias method in Vose's version: a table made once, then one look-up
/// for each draw.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    cells: Vec<Cell>,
}

/// All cells are drawn equally often. Each belongs to two ranks: below the limit to its own, above
/// it to the other one.
#[derive(Clone, Copy, Debug)]
struct Cell {
    limit: u32,
    other: u32,
}

impl Zipf {
    /// # Panics
    /// Without ranks, or with more than 2^32.
    pub(super) fn new(ranks: usize, exponent: f64) -> Zipf {
        assert!(ranks > 0 && u32::try_from(ranks).is_ok());
        let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
        let sum: f64 = (0..ranks).map(weight).sum();
        // As multiples of a cell's capacity.
        let mut shares: Vec<f64> = (0..ranks)
            .map(|rank| weight(rank) / sum * ranks as f64)
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..ranks).partition(|&rank| shares[rank] < 1.0);
        let whole = |rank: usize| Cell {
            limit: u32::MAX,
            other: rank as u32,
        };
        let mut cells: Vec<Cell> = (0..ranks).map(whole).collect();
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            cells[less] = Cell {
                limit: (shares[less] * f64::from(u32::MAX)) as u32,
                other: more as u32,
            };
            shares[more] -= 1.0 - shares[less];
            if shares[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Zipf { cells }
    }

    #[inline]
    pub(super) fn draw(&self, rng: &mut SmallRng) -> usize {
        let rank = rng.random_range(0..self.cells.len());
        let cell = self.cells[rank];
        match rng.random::<u32>() <= cell.limit {
            true => rank,
            false => cell.other as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_rank_comes_as_often_as_it_should() {
        let rng = &mut SmallRng::seed_from_u64(11);
        for (ranks, exponent) in [(1, 0.99), (2, 1.0), (50, 0.99), (1_000, 0.5), (300, 2.0)] {
            let zipf = Zipf::new(ranks, exponent);
            let draws = 2_000_000;
            let mut drawn = vec![0u32; ranks];
            for _ in 0..draws {
                drawn[zipf.draw(rng)] += 1;
            }
            let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
            let sum: f64 = (0..ranks).map(weight).sum();
            for (rank, &count) in drawn.iter().enumerate() {
                let expected = f64::from(draws) * weight(rank) / sum;
                // Six standard deviations: one run in half a billion.
                let off = (f64::from(count) - expected).abs();
                assert!(
                    off < 6.0 * expected.sqrt() + 1.0,
                    "rank {rank} of {ranks}: {count}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn with_no_exponent_all_ranks_come_alike() {
        let zipf = Zipf::new(64, 0.0);
        assert!(zipf.cells.iter().all(|cell| cell.limit > u32::MAX - 16));
    }
}
